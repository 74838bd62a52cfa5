//! Converts the Markdown of our manuals to troff's man macros.
//!
//! It supports only what the manuals use: `# name(section) date`, `## SECTION`, `### Part`,
//! paragraphs, blocks of code, lists with items `- term: text`, and `code`, *emphasis* and
//! **strong** in the text.

use std::mem;

/// The page, in the form that `man` reads.
pub(crate) fn roff(markdown: &str) -> String {
    let mut page = Page::default();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line == "```" || line.starts_with("```") {
            page.flush();
            let code = lines.by_ref().take_while(|line| *line != "```");
            page.example(code);
        } else {
            page.line(line);
        }
    }
    page.flush();
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    /// The paragraph or item that is being read.
    open: String,
    in_list: bool,
    /// Nothing follows the last heading yet.
    after_heading: bool,
}

impl Page {
    fn line(&mut self, line: &str) {
        if let Some(title) = line.strip_prefix("# ") {
            self.title(title);
        } else if let Some(name) = line.strip_prefix("## ") {
            self.heading("SH", name);
        } else if let Some(name) = line.strip_prefix("### ") {
            self.heading("SS", name);
        } else if line.is_empty() {
            self.flush();
        } else if let Some(item) = line.strip_prefix("- ") {
            self.flush();
            self.in_list = true;
            item.clone_into(&mut self.open);
        } else {
            self.open.push(' ');
            self.open.push_str(line.trim());
        }
    }

    fn title(&mut self, title: &str) {
        let (name, rest) = title.split_once('(').expect("# name(section) date");
        let (section, date) = rest.split_once(") ").expect("# name(section) date");
        let version = env!("CARGO_PKG_VERSION");
        self.put(&format!(
            ".\\\" Made from the Markdown beside it and from the programs; see tests/generated.\n\
             .TH {} {section} {date} \"gfs2-fencing {version}\" \"GFS2 fencing\"",
            name.to_uppercase().replace('-', "\\-"),
        ));
    }

    fn heading(&mut self, macro_name: &str, text: &str) {
        self.flush();
        self.put(&format!(".{macro_name} {}", styled(text)));
        self.after_heading = true;
    }

    /// Ends the paragraph or item that was read so far.
    fn flush(&mut self) {
        let text = mem::take(&mut self.open);
        let in_list = mem::take(&mut self.in_list);
        if text.trim().is_empty() {
            return;
        }
        if in_list {
            let (term, rest) = text.split_once("`: ").expect("- `term`: text");
            self.put(".TP");
            self.put(&styled(&format!("{term}`")));
            self.words(rest);
        } else {
            if !mem::take(&mut self.after_heading) {
                self.put(".PP");
            }
            self.words(text.trim());
        }
        self.after_heading = false;
    }

    fn example<'a>(&mut self, code: impl Iterator<Item = &'a str>) {
        self.put(".RS 4\n.EX");
        for line in code {
            let line = literal(line);
            self.put(&if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line });
        }
        self.put(".EE\n.RE");
        self.after_heading = false;
    }

    /// Text in lines of readable length.
    fn words(&mut self, text: &str) {
        let text = styled(text);
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + word.len() >= WIDTH_MAX {
                self.text_line(&mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.text_line(&line);
    }

    fn text_line(&mut self, line: &str) {
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        self.put(&format!("{guard}{line}"));
    }

    fn put(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Text with its `code`, **strong** and *emphasis* in fonts.
fn styled(text: &str) -> String {
    let mut styled = String::new();
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            styled.push_str(&["\\fB", &literal(part), "\\fR"].concat());
            continue;
        }
        let part = part.replace('\\', "\\e");
        for (number, part) in part.split("**").enumerate() {
            let (open, close) = if number % 2 == 1 { ("\\fB", "\\fR") } else { ("", "") };
            styled.push_str(open);
            for (number, part) in part.split('*').enumerate() {
                let emphasis = number % 2 == 1;
                styled.push_str(if emphasis { "\\fI" } else { "" });
                styled.push_str(part);
                styled.push_str(if emphasis { "\\fR" } else { "" });
            }
            styled.push_str(close);
        }
    }
    styled
}

/// Code: each character is escaped, so that it can be copied.
fn literal(code: &str) -> String {
    let mut literal = String::new();
    for c in code.chars() {
        match c {
            '\\' => literal.push_str("\\e"),
            '-' => literal.push_str("\\-"),
            '^' => literal.push_str("\\(ha"),
            '~' => literal.push_str("\\(ti"),
            '\'' => literal.push_str("\\(aq"),
            '`' => literal.push_str("\\(ga"),
            c => literal.push(c),
        }
    }
    literal
}

const WIDTH_MAX: usize = 78;
