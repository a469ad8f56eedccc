//! Floor 5: the second listener: health, metrics, JSON API.
