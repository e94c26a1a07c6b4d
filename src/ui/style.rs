//! Colour, where there is any. Words carry the meaning; colour only repeats it.

/// Paints or does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    color: bool,
}

impl Style {
    pub(super) fn new(color: bool) -> Self {
        Self { color }
    }

    /// Something that failed.
    pub(super) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Something that needs attention.
    pub(super) fn notable(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    /// Something that saved work.
    pub(super) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something that helps.
    pub(super) fn help(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    /// Something of less weight.
    pub(super) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self.color {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}
