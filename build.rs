//! Puts the commit that is built into the binary: `PROP_GIT_SHA` if set (images are built without `.git`), else git's.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PROP_GIT_SHA");
    println!("cargo:rerun-if-changed=migrations");
    for file in
        [".git/HEAD", ".git/logs/HEAD"].iter().filter(|file| std::path::Path::new(file).exists())
    {
        println!("cargo:rerun-if-changed={file}");
    }
    let sha = std::env::var("PROP_GIT_SHA").ok().filter(|sha| !sha.is_empty()).or_else(|| {
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        String::from_utf8(head.stdout).ok()
    });
    println!("cargo:rustc-env=PROP_GIT_SHA={}", sha.as_deref().unwrap_or("unknown").trim());
}
