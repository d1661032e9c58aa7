//! One connection, many requests: keep-alive, HTTP/1.0, pipelining.

use crate::support::{Server, echo};

#[test]
fn a_connection_serves_request_after_request() {
    let server = Server::start(|_| {}, echo);
    let mut client = server.connect();
    for number in 0..50 {
        let response = client
            .send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .response();
        assert_eq!(
            (response.status(), response.text()),
            (200, format!("GET /{number} "))
        );
        assert!(response.has("Connection: keep-alive"), "{}", response.head);
    }
    assert_eq!(server.log_lines(50)[49], "GET /49 200 8");
}

#[test]
fn a_pipeline_of_any_length_is_answered_in_order() {
    let server = Server::start(|config| config.workers.threads = 4, echo);
    let mut client = server.connect();
    let burst: String = (0..301)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(burst);
    for number in 0..301 {
        assert_eq!(client.response().text(), format!("GET /{number} "));
    }
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let server = Server::start(|_| {}, echo);
    let mut client = server.connect();
    client.stream.set_nodelay(true).expect("nodelay");
    for byte in b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" {
        client.send([*byte]);
    }
    assert_eq!(client.response().text(), "POST /slow hello");
}

#[test]
fn close_is_honoured_and_http_1_0_closes_by_default() {
    let server = Server::start(|_| {}, echo);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut client = server.connect();
        assert!(client.send(request).response().has("Connection: close"));
        assert!(client.is_closed(), "{request}");
    }
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(client.response().has("Connection: keep-alive"));
    assert_eq!(
        client.send("GET /2 HTTP/1.0\r\n\r\n").response().text(),
        "GET /2 "
    );
}

#[test]
fn keep_alive_can_be_turned_off() {
    let server = Server::start(|config| config.http.keepalive = None, echo);
    let mut client = server.connect();
    assert!(
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .response()
            .has("Connection: close")
    );
    assert!(client.is_closed());
}

#[test]
fn after_a_refusal_nothing_that_follows_is_looked_at() {
    let server = Server::start(|_| {}, echo);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(all.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{all}");
    assert!(!all.contains("second"), "{all}");
    assert_eq!(server.log_lines(1).len(), 1);
}
