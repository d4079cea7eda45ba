//! Object stores, each played by a server of this machine.
#![cfg(feature = "object-stores")]

use dinov3_geo::PixelWindow;
use dinov3_http::Addresses;
use dinov3_raster::{Opener, Options, Raster, RasterError};
use dinov3_testing::geotiff::{TiffFile, TiffImage};
use dinov3_testing::http_server::{HttpReply, HttpServer, part_of};

fn server(bytes: Vec<u8>) -> HttpServer {
    // Clients differ in what of the key they escape.
    HttpServer::start(move |request| {
        match request.path.split('?').next().unwrap_or_default().replace("%2F", "/").replace("%2E", ".").as_str() {
            "/bucket/folder/scene%20one.tif" | "/bucket/folder/scene.tif" | "/account/bucket/folder/scene.tif" => {
                part_of(&bytes, request).with("Last-Modified", "Sat, 01 Jun 2024 10:20:30 GMT")
            }
            "/bucket/private.tif" => HttpReply::new(403, "<Error><Code>AccessDenied</Code></Error>"),
            _ => HttpReply::new(404, "<Error><Code>NoSuchKey</Code></Error>"),
        }
    })
}

fn open(url: &str, settings: &[(&str, &str)]) -> Result<Box<dyn Raster>, RasterError> {
    let mut options = Options::default();
    options.addresses = Addresses::Any;
    options.store_settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Opener::new(options).open(url)
}

#[test]
fn s3_is_read_anonymously_and_signed_and_at_the_readers_cost() {
    let bytes = TiffFile::of(TiffImage::default()).to_bytes();
    let server = server(bytes.clone());
    let url = server.url();
    let truth = Opener::new(Options::default()).open_bytes("scene.tif", bytes).unwrap();
    let window = PixelWindow::new(10, 10, 50, 50);
    let anonymous = [("aws_endpoint", url.as_str()), ("aws_skip_signature", "true")];
    // The opener and its runtime are gone when the raster is read.
    let raster = open("s3://bucket/folder/scene.tif", &anonymous).unwrap();
    assert_eq!(raster.read(window, &[0, 1, 2]).unwrap(), truth.read(window, &[0, 1, 2]).unwrap());
    assert!(
        server.requests().iter().all(|request| request.header("authorization").is_none() && request.method == "GET")
    );
    assert_eq!(raster.profile().location, "s3://bucket/folder/scene.tif");

    let signed = [
        ("aws_endpoint", url.as_str()),
        ("aws_access_key_id", "AKIDEXAMPLE"),
        ("aws_secret_access_key", "a-very-secret-key"),
        ("aws_request_payer", "true"),
    ];
    open("s3://bucket/folder/scene one.tif", &signed).unwrap();
    let request = server.requests().pop().unwrap();
    assert!(request.header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
    assert_eq!(request.header("x-amz-request-payer"), Some("requester"));

    let missing = open("s3://bucket/nothing.tif", &signed).err().unwrap();
    assert!(matches!(missing, RasterError::NotFound { .. }), "{missing}");
    let denied = open("s3://bucket/private.tif", &signed).err().unwrap();
    assert!(matches!(denied, RasterError::Denied { .. }) && !denied.to_string().contains("secret"), "{denied}");
}

#[test]
fn google_and_azure_are_read() {
    let server = server(TiffFile::of(TiffImage::default()).to_bytes());
    let url = server.url();
    let google = [("google_base_url", url.as_str()), ("google_skip_signature", "true")];
    open("gs://bucket/folder/scene.tif", &google).unwrap_or_else(|error| panic!("{error}: {:?}", server.requests()));
    let endpoint = format!("{url}/account");
    let azure = [
        ("azure_storage_account_name", "account"),
        ("azure_storage_endpoint", endpoint.as_str()),
        ("azure_skip_signature", "true"),
    ];
    open("az://bucket/folder/scene.tif", &azure).unwrap_or_else(|error| panic!("{error}: {:?}", server.requests()));
}

#[test]
fn what_a_store_says_is_told_in_a_sentence() {
    // As S3 documents its errors; what it quotes of the request is not repeated.
    let denied = "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The signature differs.</Message>\
                  <AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId><StringToSign>secret</StringToSign></Error>";
    let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The region 'us-east-1' is wrong; expecting \
                  'eu-west-3'</Message><Region>eu-west-3</Region></Error>";
    let server = HttpServer::start(move |request| match request.path.rsplit('/').next().unwrap_or_default() {
        "denied.tif" => HttpReply::new(403, denied),
        "silent.tif" => HttpReply::new(403, ""),
        "signed-elsewhere.tif" => HttpReply::new(400, region),
        "elsewhere.tif" => HttpReply::new(301, "<Error><Code>PermanentRedirect</Code></Error>"),
        _ => {
            HttpReply::new(404, "<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>")
        }
    });
    let url = server.url();
    let settings =
        [("aws_endpoint", url.as_str()), ("aws_access_key_id", "AKIDEXAMPLE"), ("aws_secret_access_key", "secret")];
    let told = |name: &str| open(&format!("s3://bucket/{name}"), &settings).err().unwrap().to_string();
    let expected =
        "s3://bucket/denied.tif may not be read: the store answers SignatureDoesNotMatch: The signature differs.";
    assert_eq!(told("denied.tif"), expected);
    assert_eq!(told("silent.tif"), "s3://bucket/silent.tif may not be read: the store answers 403 Forbidden");
    let expected =
        "s3://bucket/signed-elsewhere.tif cannot be read: its bucket is in another region: set AWS_REGION=eu-west-3";
    assert_eq!(told("signed-elsewhere.tif"), expected);
    let expected = "s3://bucket/elsewhere.tif cannot be read: its bucket is in another region: set AWS_REGION";
    assert_eq!(told("elsewhere.tif"), expected);
    assert_eq!(told("other.tif"), "the bucket of s3://bucket/other.tif does not exist");
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_document_of_a_store_is_read_whole() {
    let server =
        HttpServer::start(|_| HttpReply::new(200, "0123456789").with("Last-Modified", "Sat, 01 Jun 2024 10:20:30 GMT"));
    let mut options = Options::default();
    let url = server.url();
    for (name, value) in [("aws_endpoint", url.as_str()), ("aws_skip_signature", "true")] {
        options.store_settings.insert(name.to_string(), value.to_string());
    }
    let opener = Opener::new(options);
    let location = dinov3_raster::Location::parse("s3://bucket/items/item.json").unwrap();
    assert_eq!(opener.read_whole(&location, 10).unwrap(), b"0123456789");
    assert!(opener.read_whole(&location, 9).unwrap_err().to_string().contains("longer than 9 bytes"));
}
