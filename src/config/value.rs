//! `Value`: what a setting can be set to before it is checked, whichever place it came from.

use std::fmt;

/// A loosely typed setting value, close to what a Python config file can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Str(String),
    List(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    /// A Python object, known here by its text alone: a hook, a class, a float. The Python side keeps the
    /// object under the setting's name.
    Opaque(String),
}

impl Value {
    pub fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(on) => Some(*on),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_dict(&self) -> Option<&[(Self, Self)]> {
        match self {
            Self::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The items of a list that are text; a validated list setting holds nothing else.
    pub fn strings(&self) -> Vec<String> {
        let items = self.as_list().unwrap_or_default();
        items
            .iter()
            .filter_map(Self::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// The text Python's `repr()` gives, because messages and `--print-config` follow Python.
    pub fn repr(&self) -> String {
        match self {
            Self::Str(text) => repr_str(text),
            other => other.to_string(),
        }
    }
}

/// The text Python's `str()` gives.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Str(text) | Self::Opaque(text) => f.write_str(text),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::repr).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Dict(pairs) => {
                let pairs: Vec<String> = pairs
                    .iter()
                    .map(|(key, value)| format!("{}: {}", key.repr(), value.repr()))
                    .collect();
                write!(f, "{{{}}}", pairs.join(", "))
            }
        }
    }
}

/// Python's `repr()` of a string: single quotes unless only those occur inside.
pub fn repr_str(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_follows_python() {
        let list = Value::List(vec![
            Value::str("a"),
            Value::Int(1),
            Value::Bool(true),
            Value::None,
        ]);
        assert_eq!(list.to_string(), "['a', 1, True, None]");
        let dict = Value::Dict(vec![(Value::str("k"), Value::str("v"))]);
        assert_eq!(dict.to_string(), "{'k': 'v'}");
        assert_eq!(Value::str("it's").repr(), "\"it's\"");
        assert_eq!(Value::str("a\n\\").repr(), r"'a\n\\'");
    }
}
