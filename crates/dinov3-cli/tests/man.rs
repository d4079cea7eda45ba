//! What packagers take.

use snapbox::cmd::Command;

#[test]
fn man_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    Command::new(snapbox::cmd::cargo_bin!("dinov3"))
        .arg("man")
        .arg("-o")
        .arg(folder.path())
        .assert()
        .code(0)
        .stdout_eq("");
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("dinov3.1").contains(".TH dinov3 1"));
    assert!(page("dinov3-embed.1").contains("resume"));
    assert!(!folder.path().join("dinov3-man.1").exists());
}
