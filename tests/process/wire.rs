//! A connection to a server, for what an HTTP client hides.

use crate::harness::TestApp;
use crate::process::PATIENCE;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A connection on which a request can be sent in parts.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    /// Connects to a server.
    pub fn open(app: &TestApp) -> Self {
        let stream = TcpStream::connect(address(app)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends bytes; whether the other side still takes them shows in what comes back.
    pub fn send(&mut self, text: &str) {
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }

    /// The next answer's status and body; `None` when the connection is closed instead.
    pub fn answer(&mut self) -> Option<(u16, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap_or(0) == 0 {
                assert_eq!(head, "", "half an answer");
                return None;
            }
        }
        let length = head
            .lines()
            .filter_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            })
            .next();
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).unwrap();
        Some((head[9..12].parse().unwrap(), String::from_utf8(body).unwrap()))
    }
}

/// The host and port of a server.
pub fn address(app: &TestApp) -> &str {
    app.url.strip_prefix("http://").unwrap()
}
