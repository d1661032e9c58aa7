//! Names, schemes and mount points, from peers that are trusted and from others.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::http::{HeadScan, Limits, parse_head};

fn head(path: &str, fields: &[&str]) -> RequestHead {
    let mut text = format!("GET {path} HTTP/1.0\r\n");
    for field in fields {
        text += field;
        text += "\r\n";
    }
    text += "\r\n";
    let mut head = RequestHead::default();
    parse_head(
        text.as_bytes(),
        &mut HeadScan::default(),
        &Limits::default(),
        &mut head,
    )
    .unwrap()
    .unwrap();
    head
}

fn policy(underscores: Underscores, forwarder: &[&str], script_name: &str) -> HeaderPolicy {
    let owned = |text: &&str| (*text).to_owned();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    HeaderPolicy::new(
        underscores,
        &forwarder.iter().map(owned).collect::<Vec<_>>(),
        &[
            pair("X-FORWARDED-PROTOCOL", "ssl"),
            pair("X-FORWARDED-PROTO", "https"),
            pair("X-FORWARDED-SSL", "on"),
        ],
        script_name.as_bytes(),
    )
}

fn by_default() -> HeaderPolicy {
    policy(Underscores::Drop, &["SCRIPT_NAME", "PATH_INFO"], "")
}

/// What is left of the fields' names, what was dropped, and what was found out.
fn applied(
    policy: &HeaderPolicy,
    is_trusted: bool,
    path: &str,
    fields: &[&str],
) -> Result<(Vec<String>, Vec<String>, Forwarded), String> {
    let mut head = head(path, fields);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut dropped = Vec::new();
    let forwarded = policy
        .apply(&mut head, is_trusted, |name| dropped.push(text(name)))
        .map_err(|error| format!("{} {}", error.status().code, error.page_message()))?;
    let kept = head.fields().map(|(name, _)| text(name)).collect();
    Ok((kept, dropped, forwarded))
}

#[test]
fn an_ordinary_head_is_left_alone() {
    let fields = ["Host: a", "Cookie: a_b=c_d", "X-Forwarded-For: 1.1.1.1"];
    for is_trusted in [false, true] {
        let (kept, dropped, forwarded) = applied(&by_default(), is_trusted, "/", &fields).unwrap();
        assert_eq!(kept, ["Host", "Cookie", "X-Forwarded-For"]);
        assert!(dropped.is_empty());
        assert_eq!(forwarded, Forwarded::default());
    }
}

#[test]
fn names_with_underscores_by_setting_and_peer() {
    let fields = ["X_One: 1", "X-One: 2", "script_name: /a", "Path_Info: /b"];
    let names = |policy: &HeaderPolicy, is_trusted| {
        applied(policy, is_trusted, "/a", &fields).map(|(kept, dropped, _)| (kept, dropped))
    };
    let lists = |kept: &[&str], dropped: &[&str]| {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        Ok((owned(kept), owned(dropped)))
    };
    assert_eq!(
        names(&by_default(), false),
        lists(&["X-One"], &["X_One", "script_name", "Path_Info"])
    );
    assert_eq!(
        names(&by_default(), true),
        lists(&["X-One", "script_name", "Path_Info"], &["X_One"])
    );
    let refuse = policy(Underscores::Refuse, &["SCRIPT_NAME"], "");
    let refusal = |name: &str| Err(format!("400 Invalid HTTP header name: '{name}'"));
    assert_eq!(names(&refuse, false), refusal("X_ONE"));
    let without_x = |is_trusted| {
        applied(&refuse, is_trusted, "/a", &fields[1..3]).map(|(kept, dropped, _)| (kept, dropped))
    };
    assert_eq!(without_x(true), lists(&["X-One", "script_name"], &[]));
    assert_eq!(without_x(false), refusal("SCRIPT_NAME"));
    // The application gets both, joined, as the operator wants it.
    let map = policy(Underscores::Map, &[], "");
    assert_eq!(
        names(&map, false),
        lists(&["X_One", "X-One", "script_name", "Path_Info"], &[])
    );
}

#[test]
fn a_forwarded_name_stands_alone() {
    for (forwarder, map) in [("REMOTE_USER", false), ("*", false), ("REMOTE_USER", true)] {
        let underscores = if map {
            Underscores::Map
        } else {
            Underscores::Drop
        };
        let policy = policy(underscores, &[forwarder], "");
        for other in ["Remote-User", "REMOTE-user"] {
            let field = format!("{other}: evil");
            for fields in [
                ["REMOTE_USER: good", field.as_str()],
                [field.as_str(), "remote_user: good"],
            ] {
                assert_eq!(
                    applied(&policy, true, "/", &fields),
                    Err("400 Invalid HTTP header name: 'REMOTE-USER'".to_owned())
                );
            }
        }
        let (kept, ..) =
            applied(&policy, true, "/", &["REMOTE_USER: a", "remote_user: b"]).unwrap();
        assert_eq!(kept.len(), 2);
    }
    // Without a forwarder the field with hyphens is an ordinary one.
    let fields = ["REMOTE_USER: good", "Remote-User: evil"];
    let (kept, ..) = applied(&by_default(), true, "/", &fields).unwrap();
    assert_eq!(kept, ["Remote-User"]);
}

#[test]
fn the_scheme_is_what_trusted_peers_say() {
    let https = |fields: &[&str], is_trusted| {
        applied(&by_default(), is_trusted, "/", fields).map(|(.., forwarded)| forwarded.is_https)
    };
    assert_eq!(https(&["X-Forwarded-Proto: https"], true), Ok(Some(true)));
    assert_eq!(https(&["x-forwarded-proto: https"], false), Ok(None));
    assert_eq!(https(&["X-FORWARDED-PROTOCOL: ssl"], true), Ok(Some(true)));
    assert_eq!(https(&["X-Forwarded-Ssl: on"], true), Ok(Some(true)));
    for other in ["http", "HTTPS", "https, http", "", "https,https"] {
        let field = format!("X-Forwarded-Proto: {other}");
        assert_eq!(https(&[&field], true), Ok(Some(false)), "{other}");
    }
    assert_eq!(https(&["X_Forwarded_Proto: https"], true), Ok(None));
    let agreed = ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: on"];
    assert_eq!(https(&agreed, true), Ok(Some(true)));
    let contradiction = Err("400 Contradictory scheme headers".to_owned());
    for fields in [
        ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"],
        ["X-Forwarded-Proto: http", "X-Forwarded-Protocol: ssl"],
        ["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"],
    ] {
        assert_eq!(https(&fields, true), contradiction);
        assert_eq!(https(&fields, false), Ok(None));
    }
}

#[test]
fn the_mount_point_comes_from_a_trusted_peer_or_the_environment() {
    let mounted = policy(Underscores::Drop, &["SCRIPT_NAME"], "/env");
    let check = |is_trusted, path, fields: &[&str]| {
        applied(&mounted, is_trusted, path, fields).map(|(.., forwarded)| forwarded.has_script_name)
    };
    let problem = |path, name| {
        Err(format!(
            "500 Configuration problem: Request path '{path}' does not start with SCRIPT_NAME '{name}'"
        ))
    };
    assert_eq!(check(true, "/env/x", &[]), Ok(false));
    assert_eq!(check(true, "/env", &[]), Ok(false));
    assert_eq!(check(true, "/other", &[]), problem("/other", "/env"));
    assert_eq!(check(true, "/own/x", &["Script_Name: /own"]), Ok(true));
    assert_eq!(
        check(true, "/env/x", &["SCRIPT_NAME: /own"]),
        problem("/env/x", "/own")
    );
    assert_eq!(check(true, "/x", &["SCRIPT_NAME:"]), Ok(true));
    assert_eq!(check(false, "/env/x", &["SCRIPT_NAME: /own"]), Ok(false));
    assert_eq!(check(true, "/env/x", &["Script-Name: /own"]), Ok(false));
    let twice = ["SCRIPT_NAME: /own", "script_name: /own"];
    assert_eq!(check(true, "/own", &twice), Ok(true));
    assert_eq!(
        check(true, "/own", &["SCRIPT_NAME: /own", "SCRIPT_NAME: /"]),
        Err("400 Contradictory SCRIPT_NAME headers".to_owned())
    );
    // Mapped by `dangerous`, but nobody vouches for it.
    let dangerous = policy(Underscores::Map, &[], "");
    let (kept, _, forwarded) = applied(&dangerous, false, "/", &["SCRIPT_NAME: /x"]).unwrap();
    assert_eq!((kept.len(), forwarded.has_script_name), (1, false));
}

#[test]
fn an_underscore_is_found_wherever_it_stands() {
    for len in 0..40 {
        for other in [b'^', b'`', b'-', b'a', 0xde, 0x5e] {
            let mut name = vec![other; len];
            assert!(!has_underscore(&name));
            for at in 0..len {
                name[at] = b'_';
                assert!(has_underscore(&name), "{at} of {len}");
                name[at] = other;
            }
        }
    }
}
