//! Clients and people who log in take nothing from others who do.
