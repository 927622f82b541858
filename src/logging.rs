//! Log lines as text or JSON. A separate thread writes them to standard error.
//!
//! A request sends its line to a bounded channel and goes on. Writing the line in the request
//! itself would cost up to a third of the throughput. A line that does not fit in the channel is
//! dropped and counted.

use env_logger::fmt::Formatter;
use log::Record;
use log::kv::{Key, Value, VisitSource};
use serde::ser::{SerializeMap, Serializer};
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::types::request;
use crate::types::time::Timestamp;

/// The field with the id of a request.
const REQUEST_ID: &str = "request_id";

/// How many lines may wait for the writer.
const WAITING: usize = 8192;

static WRITER: OnceLock<SyncSender<Message>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    ShortText(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts logging the lines that `filter` lets through (as env_logger reads it), as JSON or as
/// text. A second call in the same process, as in tests, changes nothing.
pub fn start(filter: &str, is_json: bool) {
    let (sender, receiver) = sync_channel(WAITING);
    if WRITER.set(sender.clone()).is_err() {
        return;
    }
    if std::thread::Builder::new().name("log".into()).spawn(move || write_all(&receiver)).is_err() {
        return;
    }
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter).target(env_logger::Target::Pipe(Box::new(Pipe(sender))));
    if is_json {
        // JSON escapes control characters. In text, which may be shown by a terminal, env_logger
        // removes its escape sequences: texts of clients may contain some.
        builder.format(json).write_style(env_logger::WriteStyle::Always);
    } else {
        builder.format(text);
    }
    builder.init();
}

/// Waits until the lines logged so far are written, for at most one second.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        let (done, wait) = sync_channel(1);
        if writer.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// How many lines were dropped because too many were waiting.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

struct Pipe(SyncSender<Message>);

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::ShortText(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all waiting lines in one system call. Errors are ignored: a closed standard error must
/// not stop the server.
fn write_all(messages: &Receiver<Message>) {
    let mut batch = Vec::new();
    while let Ok(first) = messages.recv() {
        let mut asked = Vec::new();
        for message in std::iter::once(first).chain(messages.try_iter().take(WAITING)) {
            match message {
                Message::ShortText(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => asked.push(done),
            }
        }
        let _ = io::stderr().write_all(&batch);
        batch.clear();
        for done in asked {
            let _ = done.send(());
        }
    }
}

/// The id of the request that the line is about, unless the line has one of its own.
fn request_id(record: &Record<'_>) -> Option<request::RequestId> {
    request::current().filter(|_| record.key_values().get(Key::from_str(REQUEST_ID)).is_none())
}

/// Formats a line as `{"at": ..., "level": ..., "target": ..., "message": ...}` with the record's
/// own fields after these.
fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    struct Fields<M>(M);
    impl<'kvs, M: SerializeMap<Error = serde_json::Error>> VisitSource<'kvs> for Fields<M> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            self.0.serialize_entry(key.as_str(), &value).map_err(log::kv::Error::boxed)
        }
    }
    let mut serializer = serde_json::Serializer::new(&mut *out);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("at", &Timestamp::now())?;
    map.serialize_entry("level", record.level().as_str())?;
    map.serialize_entry("target", record.target())?;
    map.serialize_entry("message", &format_args!("{}", record.args()))?;
    if let Some(id) = request_id(record) {
        map.serialize_entry(REQUEST_ID, &*id)?;
    }
    let mut fields = Fields(map);
    record.key_values().visit(&mut fields).map_err(io::Error::other)?;
    fields.0.end()?;
    out.write_all(b"\n")
}

/// Formats a line as `2026-02-03T04:05:06.000000Z INFO access: request method=GET ...`.
fn text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    struct Fields<'a>(&'a mut Formatter);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            match serde_json::to_value(&value).map_err(log::kv::Error::boxed)? {
                serde_json::Value::Null => Ok(()),
                serde_json::Value::String(text) => {
                    write!(self.0, " {key}={text}").map_err(log::kv::Error::boxed)
                }
                other => write!(self.0, " {key}={other}").map_err(log::kv::Error::boxed),
            }
        }
    }
    write!(
        out,
        "{} {:<5} {}: {}",
        Timestamp::now(),
        record.level(),
        record.target(),
        record.args()
    )?;
    if let Some(id) = request_id(record) {
        write!(out, " {REQUEST_ID}={id}")?;
    }
    record.key_values().visit(&mut Fields(out)).map_err(io::Error::other)?;
    writeln!(out)
}
