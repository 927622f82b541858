//! Characters that texts may not contain because nobody sees them, or because they change the order
//! in which the others are shown: with them, two names look alike and are not.
//!
//! The ranges are those of the Unicode Character Database, version 16.0: the general categories Cc,
//! Cf, Zl and Zp (`DerivedGeneralCategory.txt`), and the property Default_Ignorable_Code_Point
//! (`DerivedCoreProperties.txt`), which also has fillers and variation selectors.

use std::ops::RangeInclusive;

type Range = RangeInclusive<u32>;

/// Line breaks and tabs, which a text of several lines may contain.
const LAYOUT: [char; 3] = ['\t', '\n', '\r'];

/// Joiners, by which letters and emoji grow together, and the variation selectors that choose the
/// shape of an emoji. A name cannot have them, because not everything that they follow changes.
const SHAPING: [Range; 2] = [0x200C..=0x200D, 0xFE00..=0xFE0F];

/// Everything that is invisible: Cc, Cf, Zl, Zp and Default_Ignorable_Code_Point.
const INVISIBLE: [Range; 27] = [
    0x0000..=0x001F,   // C0 controls
    0x007F..=0x009F,   // delete, C1 controls
    0x00AD..=0x00AD,   // soft hyphen
    0x034F..=0x034F,   // combining grapheme joiner
    0x0600..=0x0605,   // Arabic number signs
    0x061C..=0x061C,   // Arabic letter mark
    0x06DD..=0x06DD,   // Arabic end of ayah
    0x070F..=0x070F,   // Syriac abbreviation mark
    0x0890..=0x0891,   // Arabic pound and piastre marks
    0x08E2..=0x08E2,   // Arabic disputed end of ayah
    0x115F..=0x1160,   // Hangul fillers
    0x17B4..=0x17B5,   // Khmer inherent vowels
    0x180B..=0x180F,   // Mongolian variation selectors and vowel separator
    0x200B..=0x200F,   // zero width space and joiners, direction marks
    0x2028..=0x202E,   // line and paragraph separators, embeddings and overrides of the direction
    0x2060..=0x206F,   // word joiner, invisible operators, isolates, deprecated controls
    0x3164..=0x3164,   // Hangul filler
    0xFE00..=0xFE0F,   // variation selectors
    0xFEFF..=0xFEFF,   // zero width no-break space, the byte order mark
    0xFFA0..=0xFFA0,   // halfwidth Hangul filler
    0xFFF0..=0xFFFB,   // reserved, interlinear annotations
    0x110BD..=0x110BD, // Kaithi number sign
    0x110CD..=0x110CD, // Kaithi number sign above
    0x13430..=0x1343F, // Egyptian hieroglyph format controls
    0x1BCA0..=0x1BCA3, // shorthand format controls
    0x1D173..=0x1D17A, // musical format controls
    0xE0000..=0xE0FFF, // tags, variation selectors supplement, reserved
];

/// What not even a text of several lines may contain: controls, changes of the direction, and tags,
/// which hide whole sentences. Joiners, direction marks and soft hyphens belong to ordinary text.
const DECEPTIVE: [Range; 8] = [
    0x0000..=0x001F,   // C0 controls
    0x007F..=0x009F,   // delete, C1 controls
    0x202A..=0x202E,   // embeddings and overrides of the direction
    0x2066..=0x206F,   // isolates, deprecated controls
    0xFFF9..=0xFFFB,   // interlinear annotations
    0x1BCA0..=0x1BCA3, // shorthand format controls
    0x1D173..=0x1D17A, // musical format controls
    0xE0000..=0xE007F, // tags
];

fn is_in(ranges: &[Range], character: char) -> bool {
    ranges.iter().any(|range| range.contains(&u32::from(character)))
}

/// Whether a name may not contain the character.
pub fn in_name(character: char) -> bool {
    is_in(&INVISIBLE, character)
}

/// Whether a line for people, such as a title, may not contain the character. Unlike a name it may
/// contain emoji of several parts.
pub fn in_line(character: char) -> bool {
    is_in(&INVISIBLE, character) && !is_in(&SHAPING, character)
}

/// Whether a text of several lines may not contain the character.
pub fn in_text(character: char) -> bool {
    is_in(&DECEPTIVE, character) && !LAYOUT.contains(&character)
}

/// The text with U+FFFD in place of each character that [`in_text`] refuses. It is for facts that
/// others report: they are recorded whatever they are written with, and PostgreSQL stores no
/// U+0000.
pub fn cleaned(text: &str) -> Option<String> {
    text.contains(in_text).then(|| text.replace(in_text, "\u{FFFD}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invisible_is_refused_and_what_is_seen_is_not() {
        let all = ["\u{202E}", "\0", "\u{9b}", "\u{2066}", "\u{E0061}", "\u{7f}"];
        let not_in_text = all.iter().all(|text| text.contains(in_text));
        assert!(not_in_text && all.iter().all(|text| text.contains(in_line)));
        let names = ["\u{200B}", "\u{200D}", "\u{FE0F}", "\u{2028}", "\u{3164}", "\u{AD}"];
        assert!(all.iter().chain(&names).all(|text| text.contains(in_name)));
        assert!(!"\u{26A0}\u{FE0F} a\u{200D}b".contains(in_line) && "a\nb".contains(in_line));
        for text in ["Zahlung & Co – ü", "支払い", "الدفع", "भुगतान", "🚀", " "]
        {
            assert!(!text.contains(in_name) && !text.contains(in_text), "{text}");
        }
        assert!(!"a\n\tb\r\n👩\u{200D}🚀\u{200E}".contains(in_text));
    }

    #[test]
    fn ranges_are_sorted_and_apart_and_the_smaller_tables_are_parts_of_the_largest() {
        let pairs = INVISIBLE.windows(2).chain(DECEPTIVE.windows(2));
        assert!(pairs.clone().count() > 30);
        for pair in pairs {
            assert!(pair[0].end() + 1 < *pair[1].start(), "{pair:x?}");
        }
        for code in SHAPING.iter().chain(&DECEPTIVE).flat_map(Clone::clone) {
            assert!(INVISIBLE.iter().any(|range| range.contains(&code)), "{code:x}");
        }
    }

    #[test]
    fn a_reported_text_is_cleaned_not_lost() {
        assert_eq!(cleaned("a\0b\u{202E}\n").as_deref(), Some("a\u{FFFD}b\u{FFFD}\n"));
        assert_eq!(cleaned("plain"), None);
    }
}
