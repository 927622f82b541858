//! Puts the commit that is built into the binary: `BUILD_GIT_SHA` if set (images are built without
//! `.git`), else git's. `cargo run` hands the variable to the program, so its name must not look
//! like one of prop's settings (`PROP_...`).

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=BUILD_GIT_SHA");
    println!("cargo:rerun-if-changed=migrations");
    // In a git worktree, these files are not below `.git`, which is a file itself.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(file) = git(&["--git-path", file]).filter(|file| Path::new(file).exists()) {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    let sha = std::env::var("BUILD_GIT_SHA").ok().filter(|sha| !sha.is_empty());
    let sha = sha.or_else(|| git(&["HEAD"]));
    println!("cargo:rustc-env=BUILD_GIT_SHA={}", sha.as_deref().unwrap_or("unknown"));
}

/// What `git rev-parse` answers, if there is a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("rev-parse").args(arguments).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}
