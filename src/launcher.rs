//! Joins the parts.
