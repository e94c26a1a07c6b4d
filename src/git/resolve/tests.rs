//! What is fetched, and what is told where that fails.
