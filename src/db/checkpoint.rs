//! Copies SQLite's write-ahead log into the database (a checkpoint), on a thread beside the one
//! that writes: writes don't wait for the disk twice.
//!
//! SQLite writes the log from its beginning again when all of it is copied and nobody reads it
//! (<https://sqlite.org/wal.html#ckpt>). A copy beside a writer never reaches the end. So when the
//! log is long, the thread copies nearly all of it, and then the writer the few pages that are
//! left, between two transactions.

use crossbeam_channel::{Receiver, Sender};
use diesel::sql_types::Integer;
use diesel::{ConnectionResult, QueryResult, QueryableByName, RunQueryDsl};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Db;

/// So many new pages of 4 KiB are copied at once. A page that several transactions changed is
/// copied once.
const MANY: i32 = 1024;

/// A log of so many pages is long.
const LONG: i32 = 4096;

/// The time between two looks at the log.
const PAUSE: Duration = Duration::from_millis(10);

/// The time after a failure.
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// The thread, as the writer sees it. It ends when the last copy is dropped.
pub(super) struct Checkpoints {
    commits: Sender<()>,
    /// Whether the thread has left the rest of a long log to the writer.
    is_rest_left: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Starts the thread. It opens its connection with `connect` when it is needed, and again after
    /// a failure.
    ///
    /// # Errors
    /// When the operating system cannot create a thread.
    pub(super) fn start(
        connect: impl Fn() -> ConnectionResult<Db> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, commits) = crossbeam_channel::bounded(1);
        let is_rest_left = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&is_rest_left);
        std::thread::Builder::new()
            .name("database-log".into())
            .spawn(move || serve(&commits, connect, &left))?;
        Ok(Self { commits: sender, is_rest_left })
    }

    /// To be called after each commit. `db` is the connection of the writer, which is between two
    /// transactions.
    pub(super) fn committed(&self, db: &mut Db) {
        if self.is_rest_left.swap(false, Ordering::Relaxed)
            && let Err(error) = checkpoint(db, "PASSIVE")
        {
            log::warn!("the end of the write-ahead log was not copied: {error}");
        }
        // When the channel is full, the thread will look at the log anyway.
        let _ = self.commits.try_send(());
    }
}

fn serve(
    commits: &Receiver<()>,
    connect: impl Fn() -> ConnectionResult<Db>,
    is_rest_left: &AtomicBool,
) {
    let (mut connection, mut seen) = (None, 0);
    let mut look = || -> Result<(), Box<dyn Error>> {
        let mut db = connection.take().map_or_else(&connect, Ok)?;
        copy(&mut db, &mut seen, is_rest_left)?;
        connection = Some(db);
        Ok(())
    };
    for () in commits {
        let pause = match look() {
            Ok(()) => PAUSE,
            Err(error) => {
                log::warn!("the write-ahead log was not copied: {error}");
                LONG_PAUSE
            }
        };
        std::thread::sleep(pause);
    }
}

/// Copies what is new in the log, when it is much. `seen` is how long the log was at the last copy.
/// Perhaps not all of that was copied: what is newer than what somebody reads has to wait.
fn copy(db: &mut Db, seen: &mut i32, is_rest_left: &AtomicBool) -> QueryResult<()> {
    let length = checkpoint(db, "NOOP")?;
    if length < *seen {
        *seen = 0; // It was begun anew.
    }
    if length - *seen >= MANY {
        *seen = checkpoint(db, "PASSIVE")?;
        if *seen >= LONG {
            // There is little new, so this is quick, and leaves less to the writer.
            *seen = checkpoint(db, "PASSIVE")?;
            is_rest_left.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The length of the log in pages, at the beginning of a checkpoint. `NOOP` copies nothing,
/// `PASSIVE` as much as it can without waiting for anybody
/// (<https://sqlite.org/pragma.html#pragma_wal_checkpoint>).
fn checkpoint(db: &mut Db, mode: &str) -> QueryResult<i32> {
    #[derive(QueryableByName)]
    struct Log {
        #[diesel(sql_type = Integer)]
        log: i32,
    }
    diesel::sql_query(format!("PRAGMA wal_checkpoint({mode})"))
        .get_result::<Log>(db)
        .map(|found| found.log)
}
