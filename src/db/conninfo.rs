//! The parameters of a PostgreSQL connection, and the URL that they may come from.
//!
//! prop takes the URL apart itself (PostgreSQL documentation, 34.1.1.2, "Connection URIs"): libpq
//! would print the part that it does not understand, and that is often a piece of a password which
//! is not percent-encoded.

use std::fmt::Write as _;

/// The parameters by their keywords (PostgreSQL documentation, 34.1.2). A later one replaces an
/// earlier one with the same keyword. It has no `Debug`: one of them may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Conninfo(Vec<(String, String)>);

/// Parameters that differ from libpq's defaults, so that a lost server is noticed within seconds.
const DEFAULTS: [(&str, &str); 3] = [
    ("connect_timeout", "5"),
    ("tcp_user_timeout", "10000"),
    ("fallback_application_name", "prop"),
];

/// The parameters that nobody may see.
const SECRET: [&str; 5] =
    ["password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"];

/// What every message about a malformed URL ends with. None of them shows a part of the URL.
const ENCODE: &str = "its password must be percent-encoded: % as %25, @ as %40, / as %2F, ? as \
    %3F, a space as %20";

impl Conninfo {
    /// The given parameters, and those of [`DEFAULTS`] that are not given.
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let own = |(keyword, value): (&str, &str)| (keyword.to_owned(), value.to_owned());
        Self(DEFAULTS.into_iter().chain(parts).map(own).collect())
    }

    /// Parses the part of a URL after `postgres://`.
    ///
    /// # Errors
    /// A message that completes "the URL ...", without any part of the URL.
    pub fn from_url(rest: &str) -> Result<Self, String> {
        let is_space = |letter: char| letter.is_whitespace() || letter.is_control();
        if rest.contains(is_space) {
            return Err(format!("has a space; {ENCODE}"));
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // The password that a `/`, `?` or `@` of its own has cut short goes on there.
        if rest.contains('@') || authority.matches('@').count() > 1 {
            return Err(format!("has an @ that does not end the password; {ENCODE}"));
        }
        let (user, hosts) = authority.split_once('@').unwrap_or(("", authority));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, ports) = hosts_of(hosts)?;
        let dbname = path.strip_prefix('/').unwrap_or(path);
        let mut parts = Vec::new();
        for (keyword, value) in [
            ("user", user),
            ("password", password),
            ("host", &hosts),
            ("port", &ports),
            ("dbname", dbname),
        ] {
            if !value.is_empty() {
                parts.push((keyword.to_owned(), decoded(value)?));
            }
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((keyword, value)) = pair.split_once('=') else {
                return Err(format!("has a parameter without a value; {ENCODE}"));
            };
            parts.push(match (&*decoded(keyword)?, decoded(value)?) {
                // As libpq has it, for URLs of JDBC.
                ("ssl", value) if value == "true" => ("sslmode".into(), "require".into()),
                (keyword, value) => (keyword.to_owned(), value),
            });
        }
        Ok(Self::new(parts.iter().map(|(keyword, value)| (&**keyword, &**value))))
    }

    /// The value of a parameter, if it is given and not empty.
    pub fn value(&self, keyword: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rfind(|(known, _)| known == keyword)?;
        Some(&**value).filter(|value| !value.is_empty())
    }

    /// The parameters as libpq reads them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (keyword, value) in &self.0 {
            let _ = write!(text, "{keyword}='{}' ", quoted(value));
        }
        text
    }

    /// A message of libpq with `***` in place of each secret.
    pub fn masked(&self, message: &str) -> String {
        let mut message = message.to_owned();
        let is_secret = |(keyword, _): &&(String, String)| SECRET.contains(&&**keyword);
        for (_, value) in self.0.iter().filter(is_secret).filter(|(_, value)| !value.is_empty()) {
            message = message.replace(value, "***").replace(&quoted(value), "***");
        }
        message
    }
}

fn quoted(value: &str) -> String {
    value.replace('\\', r"\\").replace('\'', r"\'")
}

/// The hosts and the ports of a list of hosts, each separated by commas as libpq wants them.
fn hosts_of(list: &str) -> Result<(String, String), String> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for one in list.split(',') {
        let (host, port) = match one.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((address, rest))) => (address, rest),
            Some(None) => return Err(format!("has a malformed host; {ENCODE}")),
            None => one.split_at(one.find(':').unwrap_or(one.len())),
        };
        let port = port.strip_prefix(':').unwrap_or(port);
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(format!("has a port that is no number; {ENCODE}"));
        }
        hosts.push(host);
        ports.push(port);
    }
    let joined = |values: Vec<&str>| match values.iter().all(|value| value.is_empty()) {
        true => String::new(),
        false => values.join(","),
    };
    Ok((joined(hosts), joined(ports)))
}

/// The text without percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let malformed = || format!("has a % without two hexadecimal digits after it; {ENCODE}");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(malformed());
        };
        match u8::try_from(high * 16 + low) {
            Ok(byte) if byte != 0 => bytes.push(byte),
            _ => return Err(malformed()),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("is not UTF-8 text; {ENCODE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str) -> String {
        Conninfo::from_url(url).unwrap_or_else(|why| panic!("{url}: {why}")).text()
    }

    #[test]
    fn a_url_has_the_parts_that_libpq_finds_in_it() {
        let defaults = Conninfo::new([]).text();
        for (url, expected) in [
            ("", ""),
            ("h", "host='h' "),
            ("u@h/n", "user='u' host='h' dbname='n' "),
            ("u:p@h:5433/n", "user='u' password='p' host='h' port='5433' dbname='n' "),
            ("u:a:b#c!@h", "user='u' password='a:b#c!' host='h' "),
            ("u:%25%40%2F%3f%20%27%5c@h", r"user='u' password='%@/? \'\\' host='h' "),
            ("u:p%C3%A4ü@h", "user='u' password='päü' host='h' "),
            ("[::1]:5433,b", "host='::1,b' port='5433,' "),
            ("%2Ftmp/n", "host='/tmp' dbname='n' "),
            ("/n?host=/tmp&user=u", "dbname='n' host='/tmp' user='u' "),
            (
                "h?sslmode=verify-full&&application_name=a%20b",
                "host='h' sslmode='verify-full' application_name='a b' ",
            ),
            ("h?ssl=true&connect_timeout=9", "host='h' sslmode='require' connect_timeout='9' "),
        ] {
            assert_eq!(text(url), format!("{defaults}{expected}"), "{url}");
        }
    }

    #[test]
    fn the_last_value_of_a_parameter_counts() {
        for (url, user, password) in [
            ("app:a%20%40%2Fb@h:5432/n?sslmode=require", Some("app"), Some("a @/b")),
            ("app@h/n", Some("app"), None),
            ("h/n?user=app&password=s%253", Some("app"), Some("s%3")),
            ("other:x@/n?host=/tmp&user=app", Some("app"), Some("x")),
            ("h/n", None, None),
        ] {
            let conninfo = Conninfo::from_url(url).unwrap();
            assert_eq!((conninfo.value("user"), conninfo.value("password")), (user, password));
        }
    }

    #[test]
    fn what_is_not_percent_encoded_is_refused_and_not_shown() {
        for url in [
            "u:SENTINEL%zzpassw0rd@h/n",
            "u:SENTINEL%@h/n",
            "u:SENTINEL@passw0rd@h/n",
            "u:SENTINEL/passw0rd@h/n",
            "u:SENTINEL?passw0rd@h/n",
            "u:SENTINEL?pass=w0rd@h/n",
            "u:SENTINEL@p/ssw0rd@h/n",
            "u:SENTINEL passw0rd@h/n",
            "u:SENTINEL\npassw0rd@h/n",
            "u:SENTINEL",
            "u:SENTINEL/n",
            "[u:SENTINEL",
            "h/n?SENTINEL",
            "h/n?password=SENTINEL%z",
            "u:SENTINEL%ff@h",
            "u:SENTINEL%00@h",
        ] {
            let Err(why) = Conninfo::from_url(url) else { panic!("{url} is taken") };
            assert!(why.contains("its password must be percent-encoded"), "{url}: {why}");
            assert!(!why.contains("SENTINEL") && !why.contains("w0rd"), "{url}: {why}");
        }
    }

    #[test]
    fn a_secret_is_masked_wherever_it_is_shown() {
        let parts = [("user", "prop"), ("password", r"it's\a secret"), ("sslpassword", "other")];
        let conninfo = Conninfo::new(parts);
        let shown = format!("{} it's\\a secret, other, prop", conninfo.text());
        let masked = conninfo.masked(&shown);
        assert!(!masked.contains("secret") && !masked.contains("other"), "{masked}");
        assert!(masked.ends_with(" ***, ***, prop") && masked.contains("user='prop'"), "{masked}");
        assert_eq!(Conninfo::new([("password", "")]).masked("as it is"), "as it is");
    }
}
