//! "Did you mean ...?": finds the known name that a wrong one resembles.

/// Names longer than this are not compared: the cost grows with the length, and no name of ours is
/// that long.
const LONGEST: usize = 100;

/// How alike two names must be (Jaro-Winkler, 0 to 1). `env` and `environment` are at 0.83, `prot`
/// and `port` at 0.93.
const ALIKE: f64 = 0.8;

/// The known name that resembles `wrong` most, if any does. Case and the kind of separator do not
/// count.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > LONGEST {
        return None;
    }
    let plain = |name: &str| name.to_lowercase().replace(['_', '.', ' '], "-");
    let wrong = plain(wrong);
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong, &plain(name)), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// What serde says of a field that it does not know.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownField<'a> {
    /// The field that was sent.
    pub field: &'a str,
    /// The fields there are.
    pub known: Vec<&'a str>,
}

impl<'a> UnknownField<'a> {
    /// Reads serde's message; `None` if it is about something else.
    pub fn read(message: &'a str) -> Option<Self> {
        let (_, rest) = message.split_once("unknown field `")?;
        // The field is the client's own text; the list of the known ones comes last.
        let (field, known) =
            rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, "))?;
        Some(Self { field, known: known.split('`').skip(1).step_by(2).collect() })
    }

    /// What to do about it: the field that was meant, and the ones there are.
    pub fn advice(&self) -> String {
        let meant = match nearest(self.field, self.known.iter().copied()) {
            Some(meant) => format!("Did you mean `{meant}`? "),
            None => String::new(),
        };
        match &self.known[..] {
            [] => "No field is allowed here.".into(),
            known => format!("{meant}Allowed: {}.", known.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_stranger_is_not() {
        let fields = ["service", "environment", "version", "git_sha", "observed", "http.port"];
        for (wrong, meant) in [
            ("env", Some("environment")),
            ("enviroment", Some("environment")),
            ("Environment", Some("environment")),
            ("gitSha", Some("git_sha")),
            ("git-sha", Some("git_sha")),
            ("http_prot", Some("http.port")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, fields), meant, "{wrong}");
        }
        assert_eq!(nearest("prod", ["staging", "production"]), Some("production"));
        assert_eq!(nearest(&"port".repeat(1000), ["port"]), None);
    }

    #[test]
    fn the_message_of_serde_is_read() {
        for (message, known) in [
            ("unknown field `env`, expected one of `a`, `b`, `c`", &["a", "b", "c"][..]),
            ("unknown field `env`, expected `a` or `b`", &["a", "b"]),
            ("unknown field `env`, expected `a`", &["a"]),
            ("unknown field `env`, there are no fields", &[]),
        ] {
            let read = UnknownField::read(message).unwrap();
            assert_eq!((read.field, &read.known[..]), ("env", known), "{message}");
        }
        let odd = UnknownField::read("unknown field `a`b`, expected `c`").unwrap();
        assert_eq!((odd.field, &odd.known[..]), ("a`b", &["c"][..]));
        assert_eq!(UnknownField::read("missing field `env`"), None);
    }
}
