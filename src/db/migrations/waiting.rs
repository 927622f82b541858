//! How the migrations wait: in short attempts, for as long as it takes, and not in silence.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::db::Db;

/// How long one step is tried again because it got no lock.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How often somebody who waits says so in the log.
const REMINDER: Duration = Duration::from_secs(60);

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Opens another connection to the database that is migrated.
pub type Connect<'a> = &'a dyn Fn() -> Result<Db>;

/// Does a step again, after longer and longer pauses, while it only gets no lock.
pub fn patiently(name: &str, mut step: impl FnMut() -> Result<()>) -> Result<()> {
    let (started, mut pause) = (Instant::now(), Duration::from_millis(100));
    let mut waits = Waits::new("other transactions have locked the tables of this migration");
    loop {
        let Err(error) = step() else { return Ok(()) };
        let message = error.to_string();
        if !message.contains("lock timeout") && !message.contains("deadlock detected") {
            return Err(error);
        }
        if started.elapsed() > PATIENCE {
            let minutes = PATIENCE.as_secs() / 60;
            return Err(format!(
                "migration {name} got no lock for {minutes} minutes, because other transactions \
                 do not end. Nothing is half done: end them, then start again ({message})"
            )
            .into());
        }
        waits.log();
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// A wait that the log mentions when it begins, and then every minute.
pub struct Waits {
    reason: &'static str,
    began: Instant,
    logged: Option<Instant>,
}

impl Waits {
    pub fn new(reason: &'static str) -> Self {
        Self { reason, began: Instant::now(), logged: None }
    }

    pub fn log(&mut self) {
        if self.logged.is_none_or(|at| at.elapsed() >= REMINDER) {
            self.logged = Some(Instant::now());
            let (reason, seconds) = (self.reason, self.began.elapsed().as_secs());
            log::info!("migrations wait: {reason} ({seconds} s so far)");
        }
    }
}
