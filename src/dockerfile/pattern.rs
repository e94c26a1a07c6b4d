//! Go's `filepath.Match`, which COPY sources use: `*` and `?` don't match a slash,
//! `[a-z]` and `[^a-z]` are classes, a backslash takes the next character as it is.
