//! Puts the commit that is built into the binary: `BUILD_GIT_SHA` if set (images are built without
//! `.git`), else git's. `cargo run` hands the variable to the program, so its name must not look
//! like one of prop's settings (`PROP_...`).

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=BUILD_GIT_SHA");
    println!("cargo:rerun-if-changed=migrations");
    for file in
        [".git/HEAD", ".git/logs/HEAD"].iter().filter(|file| std::path::Path::new(file).exists())
    {
        println!("cargo:rerun-if-changed={file}");
    }
    let sha = std::env::var("BUILD_GIT_SHA").ok().filter(|sha| !sha.is_empty()).or_else(|| {
        let head = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        String::from_utf8(head.stdout).ok()
    });
    println!("cargo:rustc-env=BUILD_GIT_SHA={}", sha.as_deref().unwrap_or("unknown").trim());
}
