//! Floor 6: the composition root: Settings → build → run → drained.
