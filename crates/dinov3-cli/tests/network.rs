//! Scenes with a network that ends on this machine: weights by name, pictures by URL.
//!
//! `SNAPSHOTS=overwrite cargo test -p dinov3-cli` rewrites the texts in this file; `[..]` in them stands for anything.

use std::fs;
use std::path::{Path, PathBuf};

use dinov3_testing::checkpoints::{self, Type};
use dinov3_testing::dialect::Dialect;
use dinov3_testing::http_server::{HttpReply, HttpServer};
use dinov3_testing::hub::{COMMIT, FakeHub, sha256};
use serde_json::Value;
use snapbox::cmd::Command;
use snapbox::str;
use tempfile::TempDir;

const TINY: &str =
    r#"{"architecture": "vit_small_patch16_dinov3", "model_args": {"embed_dim": 64, "depth": 2, "num_heads": 1}}"#;
const SMALL: &str = "timm/vit_small_patch16_dinov3.lvd1689m";
/// The smallest model of the table.
const TABLE_TINY: &str = "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m";

/// A folder in which commands run, with a hub.
struct Scene {
    folder: TempDir,
    hub: FakeHub,
}

impl Scene {
    fn new(repository: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap(), hub: FakeHub::with(repository, files) };
        fs::write(scene.path("tiny.json"), TINY).unwrap();
        fs::write(scene.path("a.png"), picture()).unwrap();
        scene
    }

    /// With weights that nobody opens.
    fn with_bytes() -> Self {
        Self::new(SMALL, &[("model.safetensors", vec![7; 300_000]), ("config.json", b"{}".to_vec())])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dinov3(&self, line: &str) -> Command {
        let mut command = Command::new(snapbox::cmd::cargo_bin!("dinov3"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let upper = name.to_uppercase();
            let foreign = ["HF_", "HUGGING", "TRANSFORMERS_"].iter().any(|start| upper.starts_with(start));
            if foreign || upper.ends_with("_PROXY") || upper.ends_with("_CA_BUNDLE") || upper == "SSL_CERT_FILE" {
                command = command.env_remove(&*name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("DINOV3_CACHE", self.path(".cache"))
            .env("HF_HOME", "hf")
            .env("HF_ENDPOINT", self.hub.hub.url())
            .env_remove("DINOV3_ISA")
            .env_remove("COLUMNS")
            .args(line.split_whitespace())
    }

    /// Embeds with the tiny model.
    fn embed(&self, line: &str) -> Command {
        self.dinov3(&format!("embed {line} -m tiny.json --weights synthetic:7 --size 32"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

/// Synthetic weights of a model as a file's bytes.
fn weights(model: &str, seed: u64) -> Vec<u8> {
    let spec = dinov3::find_model(model).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    checkpoints::write(&file, &checkpoints::synthetic_weights(&spec, seed, Dialect::Timm), Type::Bf16);
    fs::read(file).unwrap()
}

fn picture() -> Vec<u8> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    fs::read(samples.join("valley.png")).unwrap()
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn fetch_downloads_once_and_tells_the_licence() {
    let scene = Scene::with_bytes();
    scene.dinov3("fetch vit_small_patch16_dinov3").assert().code(0).stdout_eq(str![[r#"
hf/hub/models--timm--vit_small_patch16_dinov3.lvd1689m/snapshots/0123456789abcdef0123456789abcdef01234567/model.safetensors

"#]]).stderr_eq(str![[r#"
downloading http://127.0.0.1:[..]/timm/vit_small_patch16_dinov3.lvd1689m
license: DINOv3 License, https://ai.meta.com/resources/models-and-libraries/dinov3-license/ (and on that page)
model.safetensors: 0.3 MB
config.json: 0.0 MB

"#]]);
    // Meta's name means the same, which is there now.
    let output = scene.dinov3("fetch facebook/dinov3-vits16-pretrain-lvd1689m --json").assert().code(0).stderr_eq("");
    let told: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(told[0]["repository"], SMALL);
    assert_eq!(told[0]["commit"], COMMIT);
    assert_eq!(told[0]["files"][0]["sha256"], sha256(&[7; 300_000]));
    assert_eq!(told[0]["files"][0]["downloaded"], false);
    assert_eq!(scene.hub.downloads(), 1);
    // Without a network.
    let output = scene.dinov3("fetch vit_small_patch16_dinov3 --json").env("HF_HUB_OFFLINE", "1").assert().code(0);
    let told: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(told[0]["cached"], "offline");
}

#[test]
fn what_cannot_be_fetched_is_one_line_that_says_what_to_do() {
    let scene = Scene::with_bytes();
    let line = "fetch hf-hub:facebook/dinov3-vits16-pretrain-lvd1689m";
    scene.hub.break_hub(|_, _| HttpReply::new(403, "").with("X-Error-Code", "GatedRepo"));
    scene.dinov3(line).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
error: http://127.0.0.1:[..]/facebook/dinov3-vits16-pretrain-lvd1689m is gated (403): accept its terms on that page, then set HF_TOKEN or run 'hf auth login'; timm/vit_small_patch16_dinov3.lvd1689m has the same weights for everyone: --weights hf-hub:timm/vit_small_patch16_dinov3.lvd1689m

"#]]);
    scene.hub.mend();
    scene.dinov3("fetch vit_small_patch16_dinov3 --revision v9").assert().code(1).stderr_eq(str![[r#"
error: timm/vit_small_patch16_dinov3.lvd1689m has no revision 'v9' (404); revisions that exist: main, v1.0

"#]]);
    scene.dinov3("fetch hf-hub:someone/nothing").assert().code(1).stderr_eq(str![[r#"
error: http://127.0.0.1:[..]/someone/nothing is not open to everyone (401): check the name; if it is private, set HF_TOKEN or run 'hf auth login'

"#]]);
    scene.dinov3("fetch vit_small_patch16_dinov3").env("HF_HUB_OFFLINE", "1").assert().code(1).stderr_eq(str![[r#"
error: timm/vit_small_patch16_dinov3.lvd1689m@main is not in the cache hf/hub, and HF_HUB_OFFLINE forbids to download: unset it once

"#]]);
    // Of the others before it, is told what was done.
    let failed = scene.dinov3("fetch vit_small_patch16_dinov3 hf-hub:someone/nothing --json").assert().code(1);
    let told: Value = serde_json::from_slice(&failed.get_output().stdout).unwrap();
    assert_eq!((told.as_array().unwrap().len(), &told[0]["repository"]), (1, &SMALL.into()));
    let command = scene.dinov3("fetch facebook/dinov3-vitb16-pretrain-lvd1689m");
    let refused = command.env("TRANSFORMERS_OFFLINE", "1").assert().code(1);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("and TRANSFORMERS_OFFLINE forbids"));
    let endpoint = scene.hub.hub.url().replace("://", "://user:secret@");
    let refused = scene.dinov3("fetch hf-hub:someone/nothing").env("HF_ENDPOINT", endpoint).assert().code(1);
    assert!(!String::from_utf8_lossy(&refused.get_output().stderr).contains("secret"));
    scene.dinov3("fetch vit_smal").assert().code(2).stdout_eq("");
    scene.dinov3("fetch hf-hub:nobody").assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: 'nobody': a repository is called org/name; write hf-hub:org/name or hf-hub:org/name@revision

"#]]);
    scene.dinov3("embed a.png -m tiny.json --weights x --revision main -o x.npy").assert().code(2).stderr_eq(str![[
        r#"
error: --revision is for weights that are downloaded

"#
    ]]);
}

#[test]
fn a_failing_hub_is_asked_again_with_a_note() {
    let scene = Scene::with_bytes();
    let mut failures = 1;
    scene.hub.break_hub(move |_, reply| match std::mem::take(&mut failures) {
        0 => reply,
        _ => HttpReply::new(503, ""),
    });
    let output = scene.dinov3("fetch vit_small_patch16_dinov3").assert().code(0);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("answers with status 503; trying again in 0.3 s"), "{said}");
}

#[test]
fn two_processes_download_once() {
    let scene = Scene::with_bytes();
    scene.hub.break_storage(|_, reply| HttpReply { delay: std::time::Duration::from_millis(700), ..reply });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| scene.dinov3("fetch vit_small_patch16_dinov3").assert().code(0));
        }
    });
    assert_eq!(scene.hub.downloads(), 1);
}

#[test]
fn a_model_by_name_is_downloaded_and_its_origin_recorded() {
    let bytes = weights(TABLE_TINY, 7);
    let scene = Scene::new(&format!("timm/{TABLE_TINY}"), &[("model.safetensors", bytes.clone())]);
    let line = format!("embed a.png -m {TABLE_TINY} --size 32 -o out.npy");
    let output = scene.dinov3(&line).assert().code(0);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("license: FAIR Noncommercial Research License"), "{said}");
    let weights = &scene.json("out.npy.json")["provenance"]["weights"];
    assert_eq!(weights["hub"]["repository"], format!("timm/{TABLE_TINY}"));
    assert_eq!(weights["hub"]["revision"], "main");
    assert_eq!(weights["hub"]["commit"], COMMIT);
    assert_eq!(weights["files"][0]["sha256"], sha256(&bytes));
    // From a file, the same numbers.
    fs::write(scene.path("w.safetensors"), bytes).unwrap();
    scene.dinov3(&format!("{line} --weights w.safetensors").replace("out.npy", "file.npy")).assert().code(0);
    assert_eq!(fs::read(scene.path("out.npy")).unwrap(), fs::read(scene.path("file.npy")).unwrap());
    assert!(scene.json("file.npy.json")["provenance"]["weights"]["hub"].is_null());
}

#[test]
fn weights_come_from_any_repository_and_revision() {
    let scene = Scene::with_bytes();
    let bytes = weights(scene.path("tiny.json").to_str().unwrap(), 3);
    let scene = Scene::new("someone/tiny", &[("model.safetensors", bytes)]);
    for weights in ["--weights hf-hub:someone/tiny@v1.0", "--weights hf-hub:someone/tiny --revision v1.0"] {
        let line = format!("embed a.png -m tiny.json --size 32 -o out.npy {weights}");
        scene.dinov3(&line).assert().code(0);
        let origin = &scene.json("out.npy.json")["provenance"]["weights"]["hub"];
        assert_eq!((&origin["repository"], &origin["revision"]), (&"someone/tiny".into(), &"v1.0".into()));
        fs::remove_file(scene.path("out.npy")).unwrap();
    }
    assert_eq!(scene.hub.downloads(), 1);
}

#[test]
fn pictures_come_from_urls_and_failures_are_rows_of_the_report() {
    let scene = Scene::with_bytes();
    let first = std::sync::atomic::AtomicBool::new(true);
    let server = HttpServer::start(move |request| match request.path.as_str() {
        "/a.png?size=[1]" => HttpReply::new(200, picture()),
        "/busy" if first.swap(false, std::sync::atomic::Ordering::Relaxed) => HttpReply::new(503, ""),
        "/busy" => HttpReply::new(200, picture()),
        "/page" => HttpReply::new(200, "<html>"),
        "/huge" => HttpReply::new(200, "x").with("Content-Length", "5000000"),
        _ => HttpReply::new(404, ""),
    });
    let at = |path: &str| format!("{}{path}", server.url());
    let inputs = [at("/a.png?size=[1]"), "a.png".to_string(), at("/busy"), at("/page"), at("/missing"), at("/huge")];
    let line = format!("{} --max-file-bytes 1000000 -o -", inputs.join(" "));
    let output = scene.embed(&line).env("HF_TOKEN", "hf_secret").assert().code(3);
    let rows = json_lines(&output.get_output().stdout);
    let names: Vec<_> =
        rows.iter().filter(|row| !row["embedding"].is_null()).map(|row| row["path"].as_str().unwrap()).collect();
    assert_eq!(names, inputs[..3]);
    assert_eq!(rows[0]["embedding"], rows[1]["embedding"]);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("/missing: the server answers with status 404"), "{said}");
    assert!(said.contains("/huge: gives more than 1000000 bytes"), "{said}");
    assert!(!format!("{:?}", server.requests()).contains("hf_secret"));
    let url = at("/a.png?size=[1]");
    let line = format!("features {url} -m tiny.json --weights synthetic:7 --size 32 -o maps.safetensors");
    scene.dinov3(&line).assert().code(0);
}

#[test]
fn redirects_and_lists_do_not_lead_to_local_addresses() {
    let scene = Scene::with_bytes();
    let inside = HttpServer::start(|_| HttpReply::new(200, picture()));
    let target = inside.url();
    let server = HttpServer::start(move |_| HttpReply::redirect(&target));
    let line = format!("{} -o -", server.url());
    scene.embed(&line).assert().code(3).stderr_eq(str![[r#"
failed: http://127.0.0.1:[..]: 127.0.0.1 is at the local address 127.0.0.1, and only public addresses are allowed here (--allow-local-addresses)
0 images in [..] s, [..] images/s, 1 failed -> standard output

"#]]);
    assert_eq!(inside.requests().len(), 0);
    scene.embed(&format!("{line} --allow-local-addresses")).assert().code(0);
    // What stands in a list was not typed.
    scene.embed("- -o -").stdin(inside.url()).assert().code(3);
    assert_eq!(inside.requests().len(), 1);
    scene.embed("- -o - --allow-local-addresses").stdin(inside.url()).assert().code(0);
}

#[cfg(unix)]
#[test]
fn an_interruption_does_not_wait_for_a_silent_server() {
    use std::time::{Duration, Instant};
    let scene = Scene::with_bytes();
    let server = HttpServer::start(|_| HttpReply { delay: Duration::from_secs(5), ..HttpReply::new(200, picture()) });
    // The shell waits until the server was asked, and ends when the command does.
    let url = server.url().replace("://", "://user:secret@");
    let script = format!(
        "\"$dinov3\" embed {url}/a -m tiny.json --weights synthetic:7 --size 32 -o out.npy & sleep 1; kill $!; wait $!"
    );
    let start = Instant::now();
    let output = Command::new("bash")
        .current_dir(scene.folder.path())
        .env("DINOV3_CACHE", scene.path(".cache"))
        .env("NO_PROXY", "127.0.0.1")
        .env("dinov3", snapbox::cmd::cargo_bin!("dinov3"))
        .args(["-c", &script])
        .assert()
        .code(1)
        .stderr_eq(str![[r#"
error: interrupted; nothing was written

"#]]);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(!String::from_utf8_lossy(&output.get_output().stderr).contains("secret"));
    assert!(!scene.path("out.npy").exists());
}
