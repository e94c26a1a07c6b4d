//! A terminal behind any writer, for indicatif.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use indicatif::TermLike;

/// Columns and lines where the size can't be had.
const FALLBACK: (u16, u16) = (80, 24);

/// Gives columns and lines, as of now.
pub(super) type Size = fn() -> (u16, u16);

/// Writes ANSI sequences.
pub(super) struct Terminal {
    out: Mutex<Box<dyn Write + Send>>,
    size: Size,
}

impl Terminal {
    pub(super) fn new(out: Box<dyn Write + Send>, size: Size) -> Self {
        Self {
            out: Mutex::new(out),
            size,
        }
    }

    fn write(&self, text: fmt::Arguments<'_>) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_fmt(text)
    }

    /// Moves the cursor by `n` in `direction`; 0 is no move, but a terminal takes it
    /// for 1.
    fn cursor(&self, n: usize, direction: char) -> io::Result<()> {
        match n {
            0 => Ok(()),
            n => self.write(format_args!("\u{1b}[{n}{direction}")),
        }
    }
}

/// Columns and lines of stderr.
pub(super) fn size_of_stderr() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => FALLBACK,
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        (self.size)().0
    }

    fn height(&self) -> u16 {
        (self.size)().1
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write(format_args!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.write(format_args!("{text}"))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write(format_args!("\r\u{1b}[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.flush()
    }
}
