//! Writing a value as JSON, its long strings fast.
//!
//! serde_json looks at each byte of a string by itself for what must be escaped, which is most of the cost of a message
//! with a long text in it. It writes all else as well as can be. So it does the writing here too, and is given strings as
//! the one thing whose form it leaves to us: bytes. What is written is the same to the last byte, which a test holds.

use std::io;

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::ser::{CharEscape, Formatter};

/// Writes a value as one line of JSON.
pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut text = Text(Vec::with_capacity(SLACK));
    value.serialize(Strings(&mut serde_json::Serializer::with_formatter(&mut text, BytesAreText)))?;
    Ok(text.0)
}

/// How much more than what is written is allocated at least.
const SLACK: usize = 128;

/// What is being written. A long string has its allocation, and with room for what is behind it.
struct Text(Vec<u8>);

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            self.0.reserve(bytes.len() + SLACK);
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As serde_json's own, but that bytes are a string.
struct BytesAreText;

impl Formatter for BytesAreText {
    fn write_byte_array<W: io::Write + ?Sized>(&mut self, writer: &mut W, text: &[u8]) -> io::Result<()> {
        writer.write_all(b"\"")?;
        let mut rest = text;
        while let Some((plain, byte, after)) = split_at_special(rest) {
            writer.write_all(plain)?;
            self.write_char_escape(writer, escape(byte))?;
            rest = after;
        }
        writer.write_all(rest)?;
        writer.write_all(b"\"")
    }
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// What comes before the first byte that can't stand for itself, that byte, and the rest.
fn split_at_special(text: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let long = clean::<64>(text);
    let clean = long + clean::<16>(&text[long..]);
    let at = clean + text[clean..].iter().position(|byte| is_special(*byte))?;
    Some((&text[..at], text[at], &text[at + 1..]))
}

/// How many bytes have nothing special among them, at least: so many are looked at together, of which the compiler makes a few
/// vector instructions.
fn clean<const TOGETHER: usize>(text: &[u8]) -> usize {
    // Without a way out of the loop over one chunk, as it would keep the compiler from looking at many at once.
    let has_special = |chunk: &[u8]| chunk.iter().fold(false, |found, byte| found | is_special(*byte));
    text.chunks_exact(TOGETHER).take_while(|chunk| !has_special(chunk)).count() * TOGETHER
}

fn escape(byte: u8) -> CharEscape {
    match byte {
        b'"' => CharEscape::Quote,
        b'\\' => CharEscape::ReverseSolidus,
        b'\x08' => CharEscape::Backspace,
        b'\t' => CharEscape::Tab,
        b'\n' => CharEscape::LineFeed,
        b'\x0C' => CharEscape::FormFeed,
        b'\r' => CharEscape::CarriageReturn,
        control => CharEscape::AsciiControl(control),
    }
}

/// A serializer to which strings are bytes, and bytes are what they are to serde_json: numbers.
struct Strings<S>(S);

/// A value to be written so.
struct Value<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Value<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Strings(serializer))
    }
}

/// A list, an object or whatever else has parts.
struct Parts<S> {
    inner: S,
    /// One of serde_json's own messages to itself, such as a `RawValue`, where a string is not one.
    is_verbatim: bool,
}

impl<S> Parts<S> {
    fn of(inner: S) -> Self {
        Self { inner, is_verbatim: false }
    }
}

macro_rules! plainly {
    ($($name:ident($type:ty),)+) => {
        $(fn $name(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.$name(value)
        })+
    };
}

impl<S: Serializer> Serializer for Strings<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<S::SerializeSeq>;
    type SerializeTuple = Parts<S::SerializeTuple>;
    type SerializeTupleStruct = Parts<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<S::SerializeTupleVariant>;
    type SerializeMap = Parts<S::SerializeMap>;
    type SerializeStruct = Parts<S::SerializeStruct>;
    type SerializeStructVariant = Parts<S::SerializeStructVariant>;

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        self.0.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.0.collect_seq(value)
    }

    plainly! {
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_f32(f32),
        serialize_f64(f64),
        serialize_char(char),
        serialize_unit_struct(&'static str),
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Value(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Value(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Value(value))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(len).map(Parts::of)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(len).map(Parts::of)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, len).map(Parts::of)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_variant(name, index, variant, len).map(Parts::of)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(len).map(Parts::of)
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        let inner = self.0.serialize_struct(name, len)?;
        Ok(Parts { inner, is_verbatim: name.starts_with("$serde_json::") })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct_variant(name, index, variant, len).map(Parts::of)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! parts {
    ($($trait:ident by $($name:ident)+,)+) => {
        $(impl<S: $trait> $trait for Parts<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.inner.$name(&Value(value))
            })+

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })+
    };
}

parts! {
    SerializeSeq by serialize_element,
    SerializeTuple by serialize_element,
    SerializeTupleStruct by serialize_field,
    SerializeTupleVariant by serialize_field,
}

impl<S: SerializeMap> SerializeMap for Parts<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        // Keys are always strings, and short.
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&Value(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

macro_rules! fields {
    ($($trait:ident)+) => {
        $(impl<S: $trait> $trait for Parts<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                if self.is_verbatim {
                    return self.inner.serialize_field(key, value);
                }
                self.inner.serialize_field(key, &Value(value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })+
    };
}

fields! { SerializeStruct SerializeStructVariant }

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Of each kind of thing that serde knows.
    #[derive(Serialize)]
    enum Kind<'a> {
        Unit,
        New(&'a str),
        Tuple(&'a str, u8),
        Struct { text: &'a str, none: Option<()> },
    }

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct New<'a>(&'a str);

    #[derive(Serialize)]
    struct Pair<'a>(&'a str, f32);

    /// A value whose bytes are bytes.
    struct Bytes<'a>(&'a [u8]);

    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }

    /// As something is shown, not as it is.
    struct Shown<'a>(&'a str);

    impl Serialize for Shown<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(self.0)
        }
    }

    #[derive(Serialize)]
    struct All<'a> {
        kinds: [Kind<'a>; 4],
        unit: Unit,
        new: New<'a>,
        pair: Pair<'a>,
        some: Option<&'a str>,
        tuple: (&'a str, char, bool, ()),
        map: BTreeMap<&'a str, Vec<&'a str>>,
        numbers: BTreeMap<i64, i128>,
        bytes: Bytes<'a>,
        shown: Shown<'a>,
        raw: &'a RawValue,
        any: serde_json::Value,
        not_a_number: f64,
        #[serde(skip_serializing_if = "str::is_empty")]
        left_out: &'a str,
        #[serde(flatten)]
        flat: BTreeMap<&'a str, &'a str>,
    }

    fn all<'a>(text: &'a str, number: i64, raw: &'a RawValue) -> All<'a> {
        All {
            kinds: [Kind::Unit, Kind::New(text), Kind::Tuple(text, 1), Kind::Struct { text, none: None }],
            unit: Unit,
            new: New(text),
            pair: Pair(text, 0.1),
            some: Some(text),
            tuple: (text, text.chars().next().unwrap_or('\''), true, ()),
            map: [(text, vec![text, ""])].into(),
            numbers: [(number, i128::from(number) * 3)].into(),
            bytes: Bytes(text.as_bytes()),
            shown: Shown(text),
            raw,
            any: serde_json::json!({ text: [text, number, null] }),
            not_a_number: f64::NAN,
            left_out: "",
            flat: [("more", text)].into(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_serde_json_writes(
            text in "(\\PC|[ -~]|[\\x00-\\x1f\"\\\\/\u{7f}]){0,150}",
            number: i64,
        ) {
            let raw = RawValue::from_string(serde_json::to_string(&text).unwrap()).unwrap();
            let all = all(&text, number, &raw);
            prop_assert_eq!(to_vec(&all).unwrap(), serde_json::to_vec(&all).unwrap());
            prop_assert_eq!(to_vec(&text).unwrap(), serde_json::to_vec(&text).unwrap());
        }
    }

    /// A line of the client's own could be a command of the channel's.
    #[test]
    fn a_message_is_one_line_whatever_is_passed_on_in_it() {
        let pretty = "{\n  \"a\": [\"x\\ny\"],\r\n\"b\": 1\n}\n";
        let raw = RawValue::from_string(pretty.into()).unwrap();
        let json = crate::message::to_json(&[&raw]).unwrap();
        assert!(!json.contains(&b'\n'), "{}", String::from_utf8_lossy(&json));
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value, serde_json::json!([{ "a": ["x\ny"], "b": 1 }]));
    }

    #[test]
    fn each_byte_is_found_wherever_it_stands() {
        for special in (0..=0x7f).filter(|byte| is_special(*byte)) {
            for at in 0..200 {
                let mut text = vec![b'x'; 200];
                text[at] = special;
                let text = String::from_utf8(text).unwrap();
                assert_eq!(to_vec(&text).unwrap(), serde_json::to_vec(&text).unwrap());
            }
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_an_error() {
        let map = BTreeMap::from([(vec![1], "one")]);
        let (ours, theirs) = (to_vec(&map).unwrap_err(), serde_json::to_vec(&map).unwrap_err());
        assert_eq!(ours.to_string(), theirs.to_string());
    }
}
