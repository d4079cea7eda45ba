//! The client against servers of this machine.

use std::time::Duration;

use dinov3_http::{Addresses, Client, ClientOptions, HttpError, Redirects, Request, Url};
use dinov3_testing::http_server::{HttpReply, HttpServer};

fn client() -> Client {
    let mut options = ClientOptions::default();
    options.proxy_from_environment = false;
    options.silence_timeout = Duration::from_millis(400);
    options.total_timeout = Some(Duration::from_secs(20));
    Client::new(options).unwrap()
}

fn url(server: &HttpServer, path: &str) -> Url {
    Url::parse(&format!("{}{path}", server.url())).unwrap()
}

#[test]
fn secrets_reach_the_first_origin_only() {
    let other = HttpServer::start(|_| HttpReply::new(200, "from there"));
    let target = other.url();
    let first = HttpServer::start(move |request| match request.path.as_str() {
        "/here" => HttpReply::redirect("/again"),
        _ => HttpReply::redirect(format!("{target}/x")),
    });
    let start = url(&first, "/here");
    let mut request = Request::get(&start);
    request.addresses = Addresses::Any;
    request.headers.push(("range", "bytes=5-".to_string()));
    request.secret_headers.push(("authorization", "Bearer secret".to_string()));
    let response = client().send(&request).unwrap();
    assert_eq!(response.into_bytes(100).unwrap(), b"from there");
    let told = |server: &HttpServer, name: &str| -> Vec<Option<String>> {
        server.requests().iter().map(|request| request.header(name).map(str::to_string)).collect()
    };
    assert_eq!(told(&first, "authorization"), [Some("Bearer secret".to_string()), Some("Bearer secret".to_string())]);
    assert_eq!(told(&other, "authorization"), [None]);
    assert_eq!(told(&other, "range"), [Some("bytes=5-".to_string())]);

    // A redirect to another origin can be asked for as the answer.
    request.redirects = Redirects::SameOrigin;
    request.head_only = true;
    let response = client().send(&request).unwrap();
    assert_eq!((response.status, response.url), (302, url(&first, "/again")));
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn local_addresses_are_refused_by_rule() {
    let target = HttpServer::start(|_| HttpReply::new(200, "inside"));
    let inside = target.url();
    let server = HttpServer::start(move |_| HttpReply::redirect(&inside));
    let start = url(&server, "/");
    let mut request = Request::get(&start);
    assert!(matches!(client().send(&request).err().unwrap(), HttpError::LocalAddress { .. }));
    assert_eq!(server.requests().len(), 0);
    request.addresses = Addresses::PublicAfterRedirect;
    let error = client().send(&request).err().unwrap();
    assert!(matches!(&error, HttpError::LocalAddress { host, .. } if host == "127.0.0.1"), "{error}");
    assert_eq!((server.requests().len(), target.requests().len()), (1, 0));
    request.addresses = Addresses::Any;
    assert_eq!(client().send(&request).unwrap().into_bytes(10).unwrap(), b"inside");
    // Other ways to write the same address.
    for host in ["localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let text = format!("http://{host}:{}/", start.port());
        let Ok(start) = Url::parse(&text) else { continue };
        let error = client().send(&Request::get(&start)).err().unwrap();
        let refused = matches!(error, HttpError::LocalAddress { .. } | HttpError::Unreachable { .. });
        assert!(refused && !error.to_string().contains("refused"), "{host}: {error}");
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn endless_redirects_silence_and_early_ends_are_errors() {
    let circle = HttpServer::start(|_| HttpReply::redirect("/"));
    let start = url(&circle, "/");
    let mut request = Request::get(&start);
    request.addresses = Addresses::Any;
    let error = client().send(&request).err().unwrap();
    assert_eq!(error, HttpError::TooManyRedirects { url: start.shown(), most: 5 });
    assert_eq!(circle.requests().len(), 6);

    let slow = HttpServer::start(|_| HttpReply { delay: Duration::from_secs(3), ..HttpReply::new(200, "late") });
    let start = url(&slow, "/x");
    let mut request = Request::get(&start);
    request.addresses = Addresses::Any;
    let result = client().send(&request).and_then(|response| response.into_bytes(10));
    let error = result.err().unwrap();
    assert!(matches!(error, HttpError::TimedOut { .. }) && error.is_transient(), "{error}");

    let cut = HttpServer::start(|_| HttpReply { cut_after: Some(3), ..HttpReply::new(200, "0123456789") });
    let start = url(&cut, "/x");
    let mut request = Request::get(&start);
    request.addresses = Addresses::Any;
    let error = client().send(&request).and_then(|response| response.into_bytes(100)).err().unwrap();
    assert!(matches!(error, HttpError::BrokenOff { .. }) && error.is_transient(), "{error}");
    let error = client().send(&request).and_then(|response| response.into_bytes(9)).err().unwrap();
    assert!(matches!(error, HttpError::TooLong { limit_bytes: 9, .. }), "{error}");

    let nobody = { HttpServer::start(|_| HttpReply::new(200, "")).url() };
    std::thread::sleep(Duration::from_millis(100));
    let start = Url::parse(&nobody).unwrap();
    let mut request = Request::get(&start);
    request.addresses = Addresses::Any;
    let error = client().send(&request).err().unwrap();
    assert!(matches!(error, HttpError::Unreachable { .. } | HttpError::BrokenOff { .. }), "{error}");
}

#[test]
fn a_location_in_utf8_is_followed() {
    let server = HttpServer::start(|request| match request.path.as_str() {
        "/a%20b/%C3%A4.png" => HttpReply::new(200, "there"),
        _ => HttpReply::redirect("/a b/ä.png"),
    });
    let start = url(&server, "/");
    let mut request = Request::get(&start);
    request.addresses = Addresses::Any;
    let response = client().send(&request).unwrap();
    assert_eq!((response.status, response.into_bytes(10).unwrap()), (200, b"there".to_vec()));
}
