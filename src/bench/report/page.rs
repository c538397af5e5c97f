//! Pieces of HTML. Everything that comes from outside goes through [`escape`].

use std::fmt::Write as _;

/// Text for HTML and its attributes. Names of files and sets are anybody's: what would be markup
/// becomes text, what would steer a terminal or turn the direction of writing becomes �.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() => out.push('\u{FFFD}'),
            '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{FFFD}');
            }
            c => out.push(c),
        }
    }
    out
}

/// A path as an address of a local file.
pub fn address(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "./" });
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// A table that scrolls by itself where the page is narrow. Cells are HTML.
pub struct Table {
    html: String,
}

impl Table {
    /// `caption` says what it is, to those who do not see what stands around it, too.
    pub fn new(caption: &str, head: &[&str]) -> Self {
        let caption = escape(caption);
        let mut html = format!(
            "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\"><table>\
             <caption>{caption}</caption><thead><tr>"
        );
        for cell in head {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(cell));
        }
        html += "</tr></thead><tbody>";
        Self { html }
    }

    /// The first cell is the row's head.
    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.html += "<tr>";
        for (i, cell) in cells.iter().enumerate() {
            let cell = cell.as_ref();
            let _ = match i {
                0 => write!(self.html, "<th scope=\"row\">{cell}</th>"),
                _ => write!(self.html, "<td>{cell}</td>"),
            };
        }
        self.html += "</tr>";
    }

    pub fn finish(self) -> String {
        self.html + "</tbody></table></div>"
    }
}

/// What is shown when it is asked for.
pub fn details(summary: &str, html: &str) -> String {
    format!("<details><summary>{}</summary>{html}</details>", escape(summary))
}

/// A plot under its title, with its data beside it.
pub fn figure(title: &str, plot: &str, note: &str, data: &str) -> String {
    let note =
        if note.is_empty() { String::new() } else { format!("<p class=\"note\">{note}</p>") };
    let data = if data.is_empty() { String::new() } else { details("Data", data) };
    format!("<figure><figcaption>{}</figcaption>{plot}{note}{data}</figure>", escape(title))
}

/// In place of a plot that has no meaning.
pub fn no_figure(title: &str, why: &str) -> String {
    format!(
        "<figure class=\"none\"><figcaption>{}</figcaption><p class=\"absent\">Not available: {}</p>\
         </figure>",
        escape(title),
        escape(why)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        assert_eq!(
            escape("<b onload='x'>\"&\u{202E}\u{7}\n</b>"),
            "&lt;b onload=&#39;x&#39;&gt;&quot;&amp;\u{FFFD}\u{FFFD} &lt;/b&gt;"
        );
        assert_eq!(address("/a b/\"ü?.wav"), "file:///a%20b/%22%C3%BC%3F.wav");
        assert_eq!(address("javascript:alert(1)"), "./javascript%3Aalert%281%29");
    }
}
