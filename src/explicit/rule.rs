//! What a line of text says of AI, and whether a label keeps to the rule.
//!
//! The rule of GB 45438-2025 for explicit labels, as reported: text with "AI" or "人工智能" and
//! "生成" or "合成"; on a picture at an edge or corner, at least 5 % of the shortest side high; on a
//! video on the start frame or around the player, at least 5 %, for at least 2 s.

use std::sync::LazyLock;

use crate::report::Region;

const TABLE: &str = include_str!("marks.toml");
/// Of the shortest side.
const HEIGHT: f32 = 0.05;
/// What the measure of a text's height is good for, besides one pixel.
const MEASURED: f32 = 1.05;
const DURATION_MS: i64 = 2_000;
/// A label stands at an edge where no more than this share of the picture's side is between.
const EDGE: f32 = 0.1;
/// From then on a label is not on the start frame any more.
const START_MS: i64 = 500;

/// What a line of text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whose mark it is, if that is known.
    pub by: Option<String>,
    /// It has the words that the rule asks for.
    pub wording: bool,
}

#[derive(serde::Deserialize)]
struct Table {
    mark: Vec<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    by: String,
    text: String,
    #[serde(default)]
    alone: bool,
    errors: Option<usize>,
}

struct Mark {
    by: String,
    text: Vec<char>,
    alone: bool,
    errors: usize,
}

/// A test reads the table, so that what is compiled in is one.
static MARKS: LazyLock<Vec<Mark>> = LazyLock::new(|| {
    let table = toml::from_str(TABLE).unwrap_or(Table { mark: Vec::new() });
    let mark = |Entry { by, text, alone, errors }: Entry| {
        let text = folded(&text);
        Mark { by, errors: errors.unwrap_or_else(|| errors_in(&text)), text, alone }
    };
    table.mark.into_iter().map(mark).collect()
});

/// A letter, digit or Chinese character as it is compared, and whether it begins a word: stands after
/// something else.
type Folded = (char, bool);

/// Letters, digits and Chinese characters, with those that are taken for each other when read made
/// one: case, full width, I l 1, 0 O, and Chinese characters of nearly the same shape.
fn folded(text: &str) -> Vec<char> {
    words(text).into_iter().map(|(c, _)| c).collect()
}

/// The same, with the beginnings of words.
fn words(text: &str) -> Vec<Folded> {
    let fold = |c: char| {
        let c = match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
            _ => c,
        };
        match c {
            'l' | 'I' | 'i' | '1' | 'İ' | 'ı' => Some('i'),
            '0' | 'O' | 'o' => Some('o'),
            '戍' | '戌' | '咸' | '威' | '戚' => Some('成'),
            '干' | '于' => Some('千'),
            '入' => Some('人'),
            '台' => Some('合'),
            c if c.is_ascii_alphanumeric() => Some(c.to_ascii_lowercase()),
            '\u{3400}'..='\u{9fff}' => Some(c),
            _ => None,
        }
    };
    let mut begins = true;
    let mut all = Vec::new();
    for c in text.chars() {
        let c = fold(c);
        all.extend(c.map(|c| (c, begins)));
        begins = c.is_none();
    }
    all
}

/// How many characters of a mark may be read wrongly where the table does not say: one of a long
/// Chinese one, none of one in Latin letters, which a letter more makes an ordinary phrase.
fn errors_in(mark: &[char]) -> usize {
    let chinese = mark.iter().filter(|c| !c.is_ascii()).count();
    usize::from(chinese >= 3)
}

/// Whether `text` holds `mark` with at most `errors` characters changed, missing or too many.
fn holds(text: &[char], mark: &[char], errors: usize) -> bool {
    // Edit distance to the nearest part of the text (Sellers).
    let mut row: Vec<usize> = (0..=mark.len()).collect();
    let mut best = mark.len();
    for c in text {
        let mut diagonal = std::mem::replace(&mut row[0], 0);
        for (i, m) in mark.iter().enumerate() {
            let changed = diagonal + usize::from(m != c);
            diagonal = row[i + 1];
            row[i + 1] = changed.min(diagonal + 1).min(row[i] + 1);
        }
        best = best.min(row[mark.len()]);
    }
    best <= errors
}

/// Whether `text` holds `mark` as it is, and no Latin letter of the same word goes on before or behind.
fn holds_exactly(text: &[Folded], mark: &[char]) -> bool {
    let latin = |at: usize| text.get(at).is_some_and(|(c, _)| c.is_ascii_alphabetic());
    // Whether a word goes on from the character before `at`.
    let goes_on = |at: usize| {
        at > 0 && latin(at - 1) && latin(at) && text.get(at).is_some_and(|(_, begins)| !begins)
    };
    text.windows(mark.len().max(1)).enumerate().any(|(at, part)| {
        part.iter().map(|(c, _)| c).eq(mark) && !goes_on(at) && !goes_on(at + mark.len())
    })
}

/// Whether there is "AI" that is no part of a longer word. What `folded` has made one is told by the
/// text itself: here letters of its own script must not be neighbours.
fn has_ai(text: &[char]) -> bool {
    let letter = |at: Option<&char>| at.is_some_and(|c| c.is_ascii_alphabetic());
    text.windows(2).enumerate().any(|(i, pair)| {
        pair == ['a', 'i']
            && !letter(i.checked_sub(1).and_then(|i| text.get(i)))
            && !letter(text.get(i + 2))
    })
}

/// What a line of text says of AI; none where it says nothing of it.
///
/// "AI" by itself is too little: anything may have it. It must stand beside 生成 or 合成, or be part
/// of a mark of the table.
pub fn said(line: &str) -> Option<Said> {
    // A stroke that stands for the letter.
    let line = line.replace("A|", "AI").replace("A!", "AI");
    let with_words = words(&line);
    let text = folded(&line);
    let word = |word: &str| {
        let word: Vec<char> = word.chars().collect();
        text.windows(word.len()).any(|part| part == word)
    };
    // Within one word as it was read, so that "Hai" and "AI" stay apart.
    let ai = line.split(|c: char| !c.is_alphanumeric()).any(|part| has_ai(&folded(part)));
    let intelligence: Vec<char> = "人工智能".chars().collect();
    let made = word("生成") || word("合成");
    let wording = made && (ai || holds(&text, &intelligence, 1));
    let fits = |mark: &&Mark| match mark.errors {
        _ if mark.alone => text == mark.text,
        0 => holds_exactly(&with_words, &mark.text),
        errors => holds(&text, &mark.text, errors),
    };
    // The longest of those that fit says most.
    let mark = MARKS.iter().filter(fits).max_by_key(|mark| mark.text.len());
    (wording || mark.is_some()).then(|| Said { by: mark.map(|m| m.by.clone()), wording })
}

/// Whether a line, although it says nothing of AI as it was read, has a piece of what labels say: worth
/// another look.
pub fn hints(line: &str) -> bool {
    let text = folded(line);
    let pair = |a: &[char], b: &[char]| a.windows(2).any(|a| b.windows(2).any(|b| a == b));
    let words = ["人工智能", "生成", "合成", "ai"];
    words.iter().any(|word| pair(&text, &word.chars().collect::<Vec<_>>()))
        || MARKS.iter().any(|mark| pair(&text, &mark.text))
        || text.iter().any(|c| "生成智能梦豆灵".contains(*c))
}

/// Where and how long a label was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// Of the strokes, in pixels of the upright picture.
    pub region: Region,
    /// The height of its letters.
    pub height: f32,
    /// Start and end; none for a picture.
    pub time_ms: Option<(i64, i64)>,
}

/// How a label departs from the rule, coded, in a picture of this size; `duration_ms` is that of the
/// video.
///
/// | code | meaning |
/// | --- | --- |
/// | `wording` | not "AI" or "人工智能" with "生成" or "合成" |
/// | `text_too_small` | under 5 % of the shortest side |
/// | `not_at_edge` | a picture: more than a tenth of its side away from every edge |
/// | `not_at_start_or_edge` | a video: that, and not on the start frame |
/// | `shown_too_short` | a video: under 2 s, and not throughout |
pub fn deviations(
    said: &Said,
    shown: &Shown,
    width: usize,
    height: usize,
    duration_ms: Option<i64>,
) -> Vec<String> {
    let mut codes = Vec::new();
    let mut code = |is: bool, code: &str| {
        if is {
            codes.push(code.to_owned());
        }
    };
    code(!said.wording, "wording");
    let least = HEIGHT * width.min(height) as f32;
    code(MEASURED * shown.height + 1.0 < least, "text_too_small");
    let Region { x, y, w, h } = shown.region;
    let near = |at: u32, length: u32, all: usize| {
        let (at, end, all) = (at as f32, (at + length) as f32, all as f32);
        at.min(all - end) <= EDGE * all
    };
    let at_edge = near(x, w, width) || near(y, h, height);
    match shown.time_ms {
        None => code(!at_edge, "not_at_edge"),
        Some((start, end)) => {
            code(!at_edge && start > START_MS, "not_at_start_or_edge");
            let throughout = start == 0 && duration_ms.is_some_and(|all| end >= all);
            code(end - start < DURATION_MS && !throughout, "shown_too_short");
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_read_and_each_mark_is_found() {
        let table: Table = toml::from_str(TABLE).unwrap();
        assert_eq!(table.mark.len(), MARKS.len());
        for entry in table.mark {
            let said = said(&entry.text).unwrap_or_else(|| panic!("{}", entry.text));
            assert!(said.by.is_some(), "{}", entry.text);
        }
    }

    #[test]
    fn readings_of_the_rule() {
        for text in [
            "AI生成",
            "本图片由Al生成",
            "人工智能合成",
            "内容由人工智能生威",
            "AI 合 成",
            "Ａ１生戍",
            "A|生成",
        ] {
            assert!(said(text).is_some_and(|s| s.wording), "{text}");
        }
        let by = |text: &str| said(text).and_then(|s| s.by);
        assert_eq!(by("豆包Al生成").as_deref(), Some("Doubao"));
        assert_eq!(by("干问 A1 生成").as_deref(), Some("Qwen"));
        assert_eq!(by("★ 即梦AI").as_deref(), Some("Jimeng"));
        assert_eq!(by("KLlNG Al 2.1 PRO").as_deref(), Some("Kling"));
        assert_eq!(by("MINIMAX |hailuo Al").as_deref(), Some("MiniMax"));
        assert_eq!(by("Veo").as_deref(), Some("Google Veo"));
        assert!(said("即梦AI").is_some_and(|s| !s.wording));
    }

    #[test]
    fn ordinary_words_say_nothing() {
        for text in [
            "AI",
            "Al Jazeera",
            "A.I.",
            "生成",
            "合成橡胶",
            "人工",
            "Said Ali",
            "MAIL",
            "Main St",
            "Video",
            "Sorana",
            "Veo y creo",
            "generated by an engine",
            "made with air",
            "Sora no Kiseki",
            "Made with love",
            "Dolan",
            "百度一下",
            "豆包",
            "千问",
            "可灵",
            "Hawaii 生成",
            "ITISHPABADIAILEDWHENARUSSIANPASSENGERPLANE",
            "",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn a_second_look_is_worth_it_where_a_piece_was_read() {
        assert!(hints("本二生") && hints("iA1") && hints("maxhai"));
        assert!(!hints("") && !hints("是一个"));
    }

    #[test]
    fn the_rule_is_judged_strictly() {
        let said = Said { by: None, wording: true };
        let at = |x, y, h, time_ms| {
            let region = Region { x, y, w: 200, h };
            let shown = Shown { region, height: h as f32, time_ms };
            deviations(&said, &shown, 1920, 1080, Some(60_000)).join(" ")
        };
        assert_eq!(at(1600, 980, 54, None), "");
        assert_eq!(at(1600, 980, 40, None), "text_too_small");
        assert_eq!(at(800, 500, 54, None), "not_at_edge");
        assert_eq!(at(800, 500, 54, Some((0, 2_000))), "");
        assert_eq!(at(800, 500, 54, Some((9_000, 12_000))), "not_at_start_or_edge");
        assert_eq!(at(1600, 980, 54, Some((9_000, 12_000))), "");
        assert_eq!(at(1600, 980, 30, Some((0, 1_500))), "text_too_small shown_too_short");
        let short = Shown {
            region: Region { x: 1600, y: 980, w: 200, h: 60 },
            height: 60.0,
            time_ms: Some((0, 1_200)),
        };
        assert!(deviations(&said, &short, 1920, 1080, Some(1_200)).is_empty());
        let mark = Said { by: Some("Kling".into()), wording: false };
        assert_eq!(deviations(&mark, &short, 1920, 1080, Some(1_200)), ["wording"]);
    }
}
