//! prop as a child process, with an environment of its own.

use crate::harness::{ADMIN, TestApp, database_settings};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// More time than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A child that is killed when it is dropped, and everything it prints.
///
/// Whatever a test is about, the child may print neither [`ADMIN`] nor the password of its
/// database.
pub struct Process {
    child: Child,
    stdout: Printed,
    stderr: Printed,
    database_url: String,
}

/// One output of a child, as far as it was read, in whole lines.
struct Printed {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// How a process ended, and what it had printed.
#[derive(Debug)]
pub struct Ended {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// prop on this database, in an environment that holds nothing but these variables.
pub fn prop(arguments: &[&str], database_url: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prop"));
    command.args(arguments).env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.envs(database_settings(database_url)).env("PORT", "0");
    command.envs(variables.iter().copied());
    command
}

/// The URL of a SQLite file in this directory.
pub fn sqlite_in(directory: &tempfile::TempDir) -> String {
    format!("sqlite:{}", directory.path().join("prop.db").display())
}

/// Starts a server that knows [`ADMIN`], and waits until it listens.
#[track_caller]
pub fn serve(database_url: &str, variables: &[(&str, &str)]) -> (Process, TestApp) {
    let mut command = prop(&[], database_url, &[("PROP_BOOTSTRAP_KEY", ADMIN)]);
    let mut process = Process::spawn(command.envs(variables.iter().copied()));
    let app = process.app();
    (process, app)
}

/// Runs a command to its end.
#[track_caller]
pub fn run(arguments: &[&str], database_url: &str, variables: &[(&str, &str)]) -> Ended {
    Process::spawn(&mut prop(arguments, database_url, variables)).end()
}

/// Waits until `found` gives something; panics when that takes too long.
#[track_caller]
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Process {
    /// Starts a command and reads along what it prints.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let set = |wanted: &str| {
            let (_, value) = command.get_envs().find(|(name, _)| *name == wanted)?;
            Some(value?.to_str()?.to_owned())
        };
        // Tests look into the database as its owner.
        let database_url = set("MIGRATE_DATABASE_URL").or_else(|| set("DATABASE_URL"));
        let database_url = database_url.unwrap_or_default();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (
            Printed::read(child.stdout.take().unwrap()),
            Printed::read(child.stderr.take().unwrap()),
        );
        Self { child, stdout, stderr, database_url }
    }

    /// A client of it, as soon as it listens.
    #[track_caller]
    pub fn app(&mut self) -> TestApp {
        const SAID: &str = "listening on port ";
        let port = wait_for("the port", || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended instead of listening");
            let log = self.stderr.so_far();
            let digits: String =
                log.split_once(SAID)?.1.chars().take_while(char::is_ascii_digit).collect();
            Some(digits.parse().unwrap())
        });
        TestApp::at(port, &self.database_url)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it printed on standard error so far: its log.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until its log has this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_for(text, || self.stderr().contains(text).then_some(()));
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        signal("TERM", self.id());
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        wait_for("the end of the process", || self.child.try_wait().unwrap());
        self.end_of_long()
    }

    /// The same, of one that may take as long as it needs.
    pub fn end_of_long(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        // The pipes close with the process: nothing is missing now.
        for output in [&mut self.stdout, &mut self.stderr] {
            output.reader.take().unwrap().join().unwrap();
        }
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the process had printed:\n{}{}", self.stdout(), self.stderr());
            return;
        }
        let printed = self.stdout() + &self.stderr();
        assert!(!printed.contains(ADMIN), "the bootstrap key was printed: {printed}");
        if let Some(password) = password(&self.database_url) {
            assert!(!printed.contains(password), "the password was printed: {printed}");
        }
    }
}

impl Printed {
    fn read(output: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let kept = text.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(std::str::from_utf8(&line).unwrap());
                kept.push('\n');
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

/// The password in a database URL, unless it is so short that it may be printed as part of
/// something else.
fn password(url: &str) -> Option<&str> {
    let (user, _) = url.split_once("://")?.1.split_once('@')?;
    user.split_once(':').map(|(_, password)| password).filter(|password| password.len() > 8)
}

/// Sends a signal, by its name.
pub fn signal(name: &str, process: u32) {
    let sent =
        Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap();
    assert!(sent.success());
}
