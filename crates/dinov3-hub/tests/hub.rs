//! The hub's cache and downloads against a hub of this machine, sound and with faults.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dinov3_http::Retries;
use dinov3_hub::{CachedBecause, Event, Hub, HubError, HubReference, Settings, Snapshot};
use dinov3_testing::http_server::HttpReply;
use dinov3_testing::hub::{COMMIT, FakeHub, git_sha1, sha256};
use tempfile::TempDir;

const REPOSITORY: &str = "timm/tiny.model";
const CONFIG: &[u8] = b"{\"architecture\": \"tiny\"}";

/// A file that is large for a test and has no period.
fn weights() -> Vec<u8> {
    let mut state = 1u64;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..700_001).map(|_| step()).collect()
}

struct Scene {
    hub: FakeHub,
    folder: TempDir,
    settings: Settings,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[("model.safetensors", weights()), ("config.json", CONFIG.to_vec())])
    }

    fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let hub = FakeHub::with(REPOSITORY, files);
        let folder = tempfile::tempdir().unwrap();
        // The environment of whoever runs the tests must not count.
        let mut settings = Settings::at(&folder.path().join("hub"), &hub.hub.url()).unwrap();
        settings.retries = Retries { most: 3, first_wait: Duration::from_millis(5) };
        settings.metadata_timeout = Duration::from_millis(500);
        settings.download_timeout = Duration::from_millis(500);
        Self { hub, folder, settings }
    }

    fn fetch(&self) -> Result<Snapshot, HubError> {
        self.fetch_at("main")
    }

    fn fetch_at(&self, revision: &str) -> Result<Snapshot, HubError> {
        self.fetch_of(REPOSITORY, revision)
    }

    fn fetch_of(&self, repository: &str, revision: &str) -> Result<Snapshot, HubError> {
        let reference = HubReference::new(repository, Some(revision)).unwrap();
        Hub::new(self.settings.clone()).fetch(&reference, &mut |_| ControlFlow::Continue(()))
    }

    fn cache(&self, path: &str) -> PathBuf {
        self.folder.path().join("hub/models--timm--tiny.model").join(path)
    }

    fn partial(&self) -> PathBuf {
        self.cache(&format!("blobs/{}.incomplete", sha256(&weights())))
    }
}

fn assert_whole(snapshot: &Snapshot) {
    assert!(fs::read(&snapshot.weights).unwrap() == weights(), "the bytes differ");
    assert_eq!(snapshot.commit, COMMIT);
}

#[test]
fn a_download_has_the_layout_of_huggingface_hub() {
    let scene = Scene::new();
    let snapshot = scene.fetch().unwrap();
    assert_whole(&snapshot);
    let (sha256, git) = (sha256(&weights()), git_sha1(CONFIG));
    assert_eq!(snapshot.weights, scene.cache(&format!("snapshots/{COMMIT}/model.safetensors")));
    assert_eq!(fs::read_link(&snapshot.weights).unwrap(), Path::new("../../blobs").join(&sha256));
    assert_eq!(fs::read(scene.cache(&format!("blobs/{git}"))).unwrap(), CONFIG);
    assert_eq!(fs::read_to_string(scene.cache("refs/main")).unwrap(), COMMIT);
    assert!(scene.folder.path().join(format!("hub/.locks/models--timm--tiny.model/{sha256}.lock")).exists());
    assert!(!scene.partial().exists());
    let told: Vec<_> =
        snapshot.files.iter().map(|file| (file.name.as_str(), file.downloaded, file.sha256.clone())).collect();
    assert_eq!(told, [("model.safetensors", true, Some(sha256)), ("config.json", true, None)]);
    // The second time, the hub is asked and nothing is downloaded.
    let again = scene.fetch().unwrap();
    assert!(again.files.iter().all(|file| !file.downloaded) && again.cached.is_none());
    assert_eq!(scene.hub.downloads(), 1);
    // A commit needs no question.
    let asked = scene.hub.hub.requests().len();
    assert_eq!(scene.fetch_at(COMMIT).unwrap().cached, Some(CachedBecause::Commit));
    assert_eq!(scene.hub.hub.requests().len(), asked);
    // Another revision of the same bytes is a reference.
    scene.fetch_at("v1.0").unwrap();
    assert_eq!(scene.hub.downloads(), 1);
    assert_eq!(fs::read_to_string(scene.cache("refs/v1.0")).unwrap(), COMMIT);
}

#[test]
fn shards_are_fetched_by_their_index() {
    let index =
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let files = [
        ("model.safetensors.index.json", index.as_bytes().to_vec()),
        ("model-1.safetensors", b"one".to_vec()),
        ("model-2.safetensors", b"two".to_vec()),
    ];
    let scene = Scene::with(&files);
    let snapshot = scene.fetch().unwrap();
    let names: Vec<&str> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"]);
    assert!(snapshot.weights.ends_with("model.safetensors.index.json"));
    assert_eq!(fs::read(snapshot.folder.join("model-2.safetensors")).unwrap(), b"two");
    // A cache that lacks a shard does not count as one.
    let mut offline = scene.settings.clone();
    offline.offline = Some("HF_HUB_OFFLINE");
    let reference = HubReference::new(REPOSITORY, None).unwrap();
    let fetch = || Hub::new(offline.clone()).fetch(&reference, &mut |_| ControlFlow::Continue(()));
    assert_eq!(fetch().unwrap().cached, Some(CachedBecause::Offline));
    fs::remove_file(snapshot.folder.join("model-2.safetensors")).unwrap();
    assert!(matches!(fetch(), Err(HubError::NotCached { .. })));
    // Names in an index lead nowhere else.
    for name in ["../x.safetensors", "/etc/x.safetensors", "x.bin", ""] {
        let index = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        let scene = Scene::with(&[("model.safetensors.index.json", index.into_bytes())]);
        assert!(matches!(scene.fetch(), Err(HubError::BadIndex { .. })), "{name}");
    }
}

#[test]
fn a_file_cut_at_twenty_places_is_continued_to_the_same_bytes() {
    let scene = Scene::new();
    let length = weights().len();
    // Twenty offsets, some next to each other, some at the edges.
    let mut cuts: Vec<usize> = (0..16).map(|index| (index * 7_919 * 7_919 + 13) % length).collect();
    cuts.extend([0, 1, length - 1, length / 2]);
    cuts.sort_unstable();
    // Each run is a program of its own, without retries, and each is cut at its offset of the whole file.
    let mut settings = scene.settings.clone();
    settings.retries.most = 0;
    let reference = HubReference::new(REPOSITORY, None).unwrap();
    for &cut in &cuts {
        scene.hub.break_storage(move |_, reply| {
            let start = length - reply.body.len();
            HttpReply { cut_after: Some(cut.saturating_sub(start)), ..reply }
        });
        let error = Hub::new(settings.clone()).fetch(&reference, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, HubError::CutShort { .. }), "{error}");
        assert!(error.to_string().contains("run again"), "{error}");
        assert!(fs::metadata(scene.partial()).unwrap().len() <= cut as u64);
        assert!(!scene.cache("refs/main").exists());
    }
    scene.hub.mend();
    assert_whole(&scene.fetch().unwrap());
    let last = scene.hub.storage.requests().pop().unwrap();
    assert!(last.header("range").is_some(), "the rest alone was asked for");

    // All cuts in one run: progress starts the count of failures anew.
    let scene = Scene::new();
    let mut cuts = cuts.into_iter();
    scene.hub.break_storage(move |_, reply| match cuts.next() {
        Some(cut) => HttpReply { cut_after: Some((cut / 20).max(1)), ..reply },
        None => reply,
    });
    assert_whole(&scene.fetch().unwrap());
    assert_eq!(scene.hub.downloads(), 21);
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let scene = Scene::new();
    let mut first = true;
    let (whole, length) = (weights(), weights().len());
    scene.hub.break_storage(move |_, _| {
        let cut_after = std::mem::take(&mut first).then_some(length / 2);
        HttpReply { cut_after, ..HttpReply::new(200, whole.clone()) }
    });
    assert_whole(&scene.fetch().unwrap());
    assert_eq!(scene.hub.downloads(), 2);
}

#[test]
fn wrong_bytes_never_reach_the_cache() {
    let scene = Scene::new();
    scene.hub.break_storage(|_, mut reply| {
        reply.body[1000] ^= 1;
        reply
    });
    let error = scene.fetch().unwrap_err();
    assert!(matches!(error, HubError::WrongHash { .. }), "{error}");
    assert_eq!(scene.hub.downloads(), 1);
    assert!(!scene.partial().exists() && !scene.cache(&format!("blobs/{}", sha256(&weights()))).exists());
    scene.hub.mend();
    assert_whole(&scene.fetch().unwrap());

    // What an earlier run left may be wrong: then it starts over, once.
    for left in [vec![7; 1000], vec![7; weights().len()], vec![7; weights().len() + 5]] {
        let scene = Scene::new();
        fs::create_dir_all(scene.cache("blobs")).unwrap();
        fs::write(scene.partial(), left).unwrap();
        assert_whole(&scene.fetch().unwrap());
    }

    // git's hash of small files is checked as well; a config is not needed, so it is left out.
    let scene = Scene::new();
    scene.hub.break_hub(|request, mut reply| {
        if request.path.ends_with("config.json") && request.method == "GET" {
            reply.body[0] = b' ';
        }
        reply
    });
    let snapshot = scene.fetch().unwrap();
    assert_eq!(snapshot.files.len(), 1);
    assert!(!scene.cache(&format!("blobs/{}", git_sha1(CONFIG))).exists());
}

#[test]
fn more_bytes_than_announced_are_refused() {
    let scene = Scene::new();
    scene.hub.break_storage(|_, mut reply| {
        reply.body.push(0);
        reply
    });
    assert!(matches!(scene.fetch(), Err(HubError::TooLarge { .. })));
    scene.hub.mend();
    scene.hub.break_hub(|_, mut reply| {
        reply.headers.retain(|(name, _)| name != "X-Linked-Size");
        reply.with("X-Linked-Size", (65u64 << 30).to_string())
    });
    assert!(matches!(scene.fetch(), Err(HubError::TooLarge { .. })));
    scene.hub.break_hub(|_, mut reply| {
        reply.headers.retain(|(name, _)| name != "X-Linked-Size");
        reply.with("X-Linked-Size", (63u64 << 30).to_string())
    });
    let free = fs4::available_space(scene.folder.path()).unwrap();
    if free < 63 << 30 {
        let error = scene.fetch().unwrap_err();
        assert!(matches!(error, HubError::NoSpace { .. }) && error.to_string().contains("HF_HOME"), "{error}");
    }
}

#[test]
fn failing_servers_are_asked_again_and_then_given_up() {
    let scene = Scene::new();
    for path in ["hub", "storage"] {
        let mut failures = 2;
        let fault = move |_: &_, reply| match failures {
            0 => reply,
            _ => {
                failures -= 1;
                HttpReply::new(500, "")
            }
        };
        match path {
            "hub" => scene.hub.break_hub(fault),
            _ => scene.hub.break_storage(fault),
        }
    }
    assert_whole(&scene.fetch().unwrap());

    let scene = Scene::new();
    scene.hub.break_hub(|_, _| HttpReply::new(503, "").with("X-Error-Message", "Over capacity."));
    let error = scene.fetch().unwrap_err();
    assert!(matches!(&error, HubError::Status { status: 503, message, .. } if message == "Over capacity"), "{error}");
    assert_eq!(scene.hub.hub.requests().len(), 4);

    let scene = Scene::new();
    scene.hub.break_storage(|_, reply| HttpReply { delay: Duration::from_secs(3), ..reply });
    let error = scene.fetch().unwrap_err();
    assert!(matches!(error, HubError::Http(_)) && error.to_string().contains("in time"), "{error}");
}

#[test]
fn closed_and_missing_things_say_what_to_do() {
    let scene = Scene::new();
    let told = |error: HubError| error.with_open_copy("timm/open").to_string();
    let code = |status: u16, code: &'static str| {
        scene.hub.break_hub(move |_, _| HttpReply::new(status, "").with("X-Error-Code", code));
    };
    for status in [401, 403] {
        code(status, "GatedRepo");
        let message = told(scene.fetch().unwrap_err());
        for part in ["/timm/tiny.model is gated", "accept its terms", "HF_TOKEN", "hf-hub:timm/open"] {
            assert!(message.contains(part), "{message}");
        }
    }
    code(403, "");
    assert!(told(scene.fetch().unwrap_err()).contains("rights of the token"));
    code(404, "RepoNotFound");
    assert!(told(scene.fetch().unwrap_err()).contains("does not exist"));
    scene.hub.mend();
    let message = told(scene.fetch_of("timm/nothing", "main").unwrap_err());
    assert!(message.contains("not open to everyone (401)") && message.contains("check the name"), "{message}");
    let message = told(scene.fetch_at("v2").unwrap_err());
    assert!(message.contains("no revision 'v2'") && message.contains("exist: main, v1.0"), "{message}");
    let scene = Scene::with(&[("pytorch_model.bin", b"x".to_vec())]);
    let message = told(scene.fetch().unwrap_err());
    assert!(message.contains("neither model.safetensors") && message.contains("pytorch_model.bin"), "{message}");
    // Something that answers, and is no hub.
    scene.hub.break_hub(|_, _| HttpReply::new(200, "<html>"));
    assert!(matches!(scene.fetch(), Err(HubError::NotAHub { .. })));
    scene.hub.break_hub(|_, reply| {
        let reply = HttpReply { status: 200, ..reply };
        reply.with("X-Repo-Commit", COMMIT).with("X-Linked-Etag", "\"../../../evil\"")
    });
    assert!(matches!(scene.fetch(), Err(HubError::NotAHub { .. })));
}

#[test]
fn the_token_is_told_to_the_hub_alone() {
    let mut scene = Scene::new();
    scene.settings.token = Some("hf_secret".to_string());
    scene.fetch().unwrap();
    let hub = scene.hub.hub.requests();
    assert!(hub.iter().all(|request| request.header("authorization") == Some("Bearer hf_secret")), "{hub:?}");
    let storage = scene.hub.storage.requests();
    assert!(!storage.is_empty());
    assert!(!format!("{storage:?}").contains("hf_secret"), "{storage:?}");
}

#[test]
fn without_a_network_the_cache_is_used() {
    let mut scene = Scene::new();
    scene.settings.offline = Some("HF_HUB_OFFLINE");
    let message = scene.fetch().unwrap_err().to_string();
    assert!(message.contains("HF_HUB_OFFLINE") && message.contains("timm/tiny.model@main"), "{message}");
    assert_eq!(scene.hub.hub.requests().len(), 0);
    scene.settings.offline = None;
    scene.fetch().unwrap();
    scene.settings.offline = Some("HF_HUB_OFFLINE");
    let asked = scene.hub.hub.requests().len();
    let snapshot = scene.fetch().unwrap();
    assert_whole(&snapshot);
    assert_eq!((snapshot.cached, scene.hub.hub.requests().len()), (Some(CachedBecause::Offline), asked));
    assert!(matches!(scene.fetch_at("v1.0"), Err(HubError::NotCached { .. })));

    // Nobody there.
    scene.settings.offline = None;
    let away = Scene::new();
    scene.settings.endpoint = away.hub.hub.url();
    drop(away);
    let mut notes = Vec::new();
    let reference = HubReference::new(REPOSITORY, None).unwrap();
    let snapshot = Hub::new(scene.settings.clone()).fetch(&reference, &mut |event| {
        if let Event::UsingCache { commit, .. } = event {
            notes.push(commit.to_string());
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(snapshot.unwrap().cached, Some(CachedBecause::NoAnswer(_))));
    assert_eq!(notes, [COMMIT]);
    let message = scene.fetch_at("v1.0").unwrap_err().to_string();
    assert!(message.contains("is not in the cache") && message.contains("check the network"), "{message}");

    // The hub fails, or shuts this repository: what is there is used, at once.
    scene.settings.endpoint = scene.hub.hub.url();
    for status in [500, 403] {
        scene.hub.break_hub(move |_, _| HttpReply::new(status, ""));
        let asked = scene.hub.hub.requests().len();
        assert!(matches!(scene.fetch().unwrap().cached, Some(CachedBecause::NoAnswer(_))));
        assert_eq!(scene.hub.hub.requests().len(), asked + 1);
    }
}

#[test]
fn many_at_once_download_once() {
    let scene = Scene::new();
    scene.hub.break_storage(|_, reply| HttpReply { delay: Duration::from_millis(200), ..reply });
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_whole(&scene.fetch().unwrap()));
        }
    });
    assert_eq!(scene.hub.downloads(), 1);
}

#[test]
fn a_download_can_be_cancelled_and_continued() {
    let scene = Scene::new();
    let reference = HubReference::new(REPOSITORY, None).unwrap();
    let result = Hub::new(scene.settings.clone()).fetch(&reference, &mut |event| match event {
        Event::Bytes { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(result, Err(HubError::Cancelled)));
    let there = fs::metadata(scene.partial()).unwrap().len();
    assert!(there > 0);
    let mut from = None;
    let snapshot = Hub::new(scene.settings.clone()).fetch(&reference, &mut |event| {
        if let Event::Download { name: "model.safetensors", from_bytes, .. } = event {
            from = Some(from_bytes);
        }
        ControlFlow::Continue(())
    });
    assert_whole(&snapshot.unwrap());
    assert_eq!(from, Some(there));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let scene = Scene::new();
    fs::create_dir_all(scene.cache("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", scene.partial()).unwrap();
    let error = scene.fetch().unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }) && error.to_string().contains("disk is full"), "{error}");
    assert!(!scene.cache("refs/main").exists());
}

#[test]
fn without_links_files_lie_in_the_snapshot() {
    let mut scene = Scene::new();
    scene.settings.links = false;
    let snapshot = scene.fetch().unwrap();
    assert_whole(&snapshot);
    assert!(!fs::symlink_metadata(&snapshot.weights).unwrap().is_symlink());
    assert!(!scene.cache(&format!("blobs/{}", sha256(&weights()))).exists());
    scene.fetch().unwrap();
    assert_eq!(scene.hub.downloads(), 1);
}

#[test]
fn a_blob_that_lost_its_end_is_downloaded_again() {
    let scene = Scene::new();
    scene.fetch().unwrap();
    fs::write(scene.cache(&format!("blobs/{}", sha256(&weights()))), b"short").unwrap();
    assert_whole(&scene.fetch().unwrap());
    assert_eq!(scene.hub.downloads(), 2);
}
