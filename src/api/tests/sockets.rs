//! Unusual requests at the level of bytes: old protocols, missing headers, foreign protocols.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{primary, rig};
use crate::agent::handle;
use crate::api::{ApiError, ApiSetup, bind, serve};
use crate::os::clock;

#[tokio::test]
async fn load_balancers_of_any_age_are_answered() {
    let rig = rig(primary(clock::now())).await;
    let cases = [
        ("OPTIONS / HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("HEAD /primary HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("HEAD /replica HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 503"),
        ("OPTIONS /readiness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 503"),
        ("HEAD /patroni HTTP/1.0\r\n\r\n", "HTTP/1.0 503"),
        ("HEAD /liveness HTTP/1.0\r\n\r\n", "HTTP/1.0 503"),
        ("HEAD /metrics HTTP/1.0\r\n\r\n", "HTTP/1.0 503"),
        ("GET /liveness HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("GET //leader HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200"),
        ("GET http://any/leader HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
    ];
    for (request, expected) in cases {
        let answer = rig.raw(request).await;
        assert!(answer.starts_with(expected), "{request:?}: {answer}");
        if !request.starts_with("GET /") || request.contains("liveness") {
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
            assert!(request.starts_with("GET http") || body == Some(""), "{request:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_needs_a_length() {
    let rig = rig(primary(clock::now())).await;
    for (request, expected) in [
        ("POST /switchover HTTP/1.0\r\n\r\n", "HTTP/1.0 411"),
        ("PATCH /config HTTP/1.0\r\nContent-Length: 3\r\n\r\n{x}", "HTTP/1.0 400"),
        ("POST /switchover HTTP/1.0\r\nContent-Length: 0\r\n\r\n", "HTTP/1.0 400"),
        ("POST /reload HTTP/1.0\r\n\r\n", "HTTP/1.0 202"),
        ("POST /restart HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("POST /restart HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.0 200"),
    ] {
        let answer = rig.raw(request).await;
        assert!(answer.starts_with(expected), "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let rig = rig(primary(clock::now())).await;
    let setup = ApiSetup { listen: ("127.0.0.1".to_owned(), rig.address.port()), ..ApiSetup::default() };
    let error = bind(&setup).await.expect_err("somebody listens there");
    assert!(matches!(error, ApiError::PortInUse { .. }));
    assert!(error.to_string().contains(&rig.address.port().to_string()), "{error}");
}

/// A hanging loop stops neither the liveness probe nor the other probes.
#[tokio::test]
async fn probes_are_answered_while_the_loop_hangs() {
    let (handle, orders) = handle(primary(clock::now()));
    let setup = ApiSetup { listen: ("127.0.0.1".to_owned(), 0), ..ApiSetup::default() };
    let listener = bind(&setup).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (_setup, setup) = watch::channel(Arc::new(setup));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, setup, handle, tokio::runtime::Handle::current(), async {
        let _ = stopped.await;
    }));
    let peers = crate::peer::Peers::default();
    let within = Duration::from_secs(20);
    let ask = |path: &str| crate::peer::Call {
        method: "GET".to_owned(),
        url: format!("http://{address}{path}"),
        body: None,
        credentials: None,
        within,
    };
    assert_eq!(peers.call(ask("/liveness")).await.expect("an answer").0, 200);
    assert_eq!(peers.call(ask("/leader")).await.expect("an answer").0, 200);
    // The last query becomes too old, because none succeeds.
    let deadline = clock::now() + within;
    while peers.call(ask("/primary")).await.expect("an answer").0 != 503 {
        assert!(clock::now() < deadline, "an old look still counts");
    }
    let answer = peers.ask(&format!("http://{address}/patroni"), within).await;
    assert!(answer.reachable && !answer.in_recovery, "{answer:?}");
    stop.send(()).expect("the server runs");
    tokio::time::timeout(within, server).await.expect("it ends").expect("it does not panic");
    assert!(peers.call(ask("/liveness")).await.is_err());
    drop(orders);
}
