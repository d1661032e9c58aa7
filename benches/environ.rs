//! A request becomes a WSGI environ: small as from a load generator, large as from a browser behind a proxy.
//!
//! Needs an interpreter to link with: `make bench`, or `cargo bench --bench environ` with `LD_LIBRARY_PATH` set to
//! where libpython is.

#[path = "heads.rs"]
mod heads;

use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use ferricorn::http::{HeadScan, Limits, parse_head};
use ferricorn::pool::{Job, Peer};
use ferricorn::python::wsgi::{Environs, ListenerAddress, WsgiSettings};
use pyo3::Python;

fn settings() -> WsgiSettings {
    WsgiSettings {
        multithread: true,
        multiprocess: true,
        server_software: "ferricorn".to_owned(),
        script_name: String::new(),
        sendfile: true,
        listeners: vec![ListenerAddress::Tcp {
            name: "127.0.0.1".to_owned(),
            port: 8000,
        }],
        noted_keys: Vec::new(),
        request_id_seed: None,
    }
}

fn job(head: &[u8]) -> Job {
    let mut job = Job::new(Instant::now());
    let parsed = parse_head(
        head,
        &mut HeadScan::default(),
        &Limits::default(),
        &mut job.head,
    );
    assert!(parsed.is_ok_and(|end| end.is_some()), "the head is whole");
    job.peer = Peer::Tcp(([127, 0, 0, 1], 50_000).into());
    job
}

fn environ(criterion: &mut Criterion) {
    Python::initialize();
    Python::attach(|py| {
        let mut maker =
            Environs::new(py, Arc::new(settings())).expect("the interpreter has memory");
        let mut group = criterion.benchmark_group("environ");
        for (name, head) in [
            ("short head", heads::SHORT),
            ("20 fields", heads::REALISTIC),
        ] {
            let mut job = job(head);
            group.bench_function(name, |bencher| {
                bencher.iter(|| maker.make(py, &mut job).expect("the request is plain"));
            });
        }
        group.finish();
    });
}

criterion_group!(benches, environ);
criterion_main!(benches);
