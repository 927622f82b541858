//! Finds what belongs to the path of a request. It compares segment by segment: actix tries one
//! regular expression after the other, which was a fifth of the work of a small request.

use std::str::Split;

/// Values by the patterns of their paths. A segment of a pattern is a text, or a parameter in
/// braces, which stands for any segment that is not empty.
pub struct Paths<T> {
    here: Option<T>,
    texts: Vec<(&'static str, Paths<T>)>,
    parameter: Option<Box<Paths<T>>>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { here: None, texts: Vec::new(), parameter: None }
    }
}

impl<T> Paths<T> {
    /// The value of a pattern, for a change. It has none at first.
    pub fn at(&mut self, pattern: &'static str) -> &mut Option<T> {
        let place = pattern.split('/').fold(self, |place, segment| place.below(segment));
        &mut place.here
    }

    fn below(&mut self, segment: &'static str) -> &mut Self {
        if is_parameter(segment) {
            return self.parameter.get_or_insert_default();
        }
        let known = self.texts.iter().position(|(text, _)| *text == segment);
        let at = known.unwrap_or_else(|| {
            self.texts.push((segment, Self::default()));
            self.texts.len() - 1
        });
        &mut self.texts[at].1
    }

    /// The value of the pattern that a path matches. Where both do, a text comes before a
    /// parameter.
    pub fn find(&self, path: &str) -> Option<&T> {
        self.find_below(path.split('/'))
    }

    fn find_below(&self, mut segments: Split<'_, char>) -> Option<&T> {
        let Some(segment) = segments.next() else { return self.here.as_ref() };
        let text = self.texts.iter().find(|(text, _)| *text == segment);
        text.and_then(|(_, below)| below.find_below(segments.clone())).or_else(|| {
            let below = self.parameter.as_ref().filter(|_| !segment.is_empty())?;
            below.find_below(segments)
        })
    }
}

/// The parameters of a path that matches the pattern: their names and values.
pub fn parameters<'p>(
    pattern: &'static str,
    path: &'p str,
) -> impl Iterator<Item = (&'static str, &'p str)> {
    let both = pattern.split('/').zip(path.split('/')).filter(|(segment, _)| is_parameter(segment));
    both.map(|(segment, value)| (segment.trim_matches(['{', '}']), value))
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(patterns: &[&'static str]) -> Paths<&'static str> {
        let mut paths = Paths::default();
        for pattern in patterns {
            *paths.at(pattern) = Some(*pattern);
        }
        paths
    }

    #[test]
    fn a_path_matches_whole_segments() {
        let paths = paths(&["/things", "/things/{id}", "/things/{id}/parts/{part}", "/"]);
        for (path, pattern) in [
            ("/things", "/things"),
            ("/things/1", "/things/{id}"),
            ("/things/{id}", "/things/{id}"),
            ("/things/1/parts/2", "/things/{id}/parts/{part}"),
            ("/", "/"),
        ] {
            assert_eq!(paths.find(path), Some(&pattern), "{path}");
        }
        for path in
            ["", "//", "things", "/thing", "/things/", "//things", "/things/1/", "/things/1/parts"]
        {
            assert_eq!(paths.find(path), None, "{path}");
        }
        assert_eq!(paths.find("/things//parts/2"), None, "a parameter is not empty");
    }

    #[test]
    fn a_text_comes_before_a_parameter() {
        let paths = paths(&["/{any}", "/{any}/parts", "/things", "/things/{id}/scan"]);
        assert_eq!(paths.find("/things"), Some(&"/things"));
        assert_eq!(paths.find("/others"), Some(&"/{any}"));
        assert_eq!(paths.find("/things/parts"), Some(&"/{any}/parts"));
        assert_eq!(paths.find("/others/1/scan"), None);
    }

    #[test]
    fn parameters_have_the_names_of_their_own_pattern() {
        let mut paths = paths(&["/things/{id}", "/things/{thing}/parts/{part}"]);
        assert_eq!(*paths.at("/things/{slug}"), Some("/things/{id}"));
        let path = "/things/1/parts/%7B2";
        let pattern = paths.find(path).unwrap();
        let found: Vec<_> = parameters(pattern, path).collect();
        assert_eq!(found, [("thing", "1"), ("part", "%7B2")]);
        assert_eq!(parameters("/things", "/things").count(), 0);
    }
}
