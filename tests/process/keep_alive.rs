//! How long a connection stays open on which nothing is asked.

use crate::process::{serve, sqlite_in};
use crate::wire::Wire;

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: prop\r\n\r\n";

/// A load balancer keeps connections for a minute, and uses them again. What prop closes first is
/// a 502 for somebody. The connection that may stay was idle for longer than the one that is closed,
/// so that no time has to be measured.
#[test]
fn an_idle_connection_stays_open_as_long_as_the_settings_say() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_patient, patient) = serve(&sqlite_in(&first), &[]);
    let setting = [("PROP_HTTP__KEEP_ALIVE_SECONDS", "1")];
    let (_impatient, impatient) = serve(&sqlite_in(&second), &setting);
    let (mut stays, mut closes) = (Wire::open(&patient), Wire::open(&impatient));
    for wire in [&mut stays, &mut closes] {
        wire.send(LIVEZ);
        assert_eq!(wire.answer().unwrap().0, 200);
    }
    assert_eq!(closes.answer(), None);
    stays.send(LIVEZ);
    assert_eq!(stays.answer().map(|(status, _)| status), Some(200));
}
