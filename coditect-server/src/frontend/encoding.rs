//! Negotiation of content codings (RFC 9110, section 12.5.3).

use std::io::{self, Write as _};

use flate2::{Compression, write::GzEncoder};
use hyper::{HeaderMap, header};

/// Nearly as small as with the best level, in a tenth of the time.
const BROTLI_QUALITY: u32 = 9;

/// Window size, as a power of two in bytes.
const BROTLI_WINDOW: u32 = 22;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Brotli,
    Gzip,
}

impl Encoding {
    /// All codings, the better first.
    pub(super) const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Returns the name in HTTP.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the compressed `content`.
    pub(super) fn compress(self, content: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli => {
                let mut writer =
                    brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, BROTLI_WINDOW);
                writer.write_all(content)?;
                Ok(writer.into_inner())
            }
            Self::Gzip => {
                let mut writer = GzEncoder::new(Vec::new(), Compression::best());
                writer.write_all(content)?;
                writer.finish()
            }
        }
    }
}

/// Returns the coding that the client prefers to plain bytes: that with the highest weight, and the
/// better of two equal ones. Returns `None` without a header, or if plain bytes are preferred.
pub(super) fn preferred(headers: &HeaderMap) -> Option<Encoding> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap_or_default()).collect();
    let items: Vec<(&str, u16)> =
        lines.iter().flat_map(|line| line.split(',')).filter_map(weighed).collect();
    let weight = |wanted: &str| {
        let named = items.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.or_else(|| items.iter().find(|(name, _)| *name == "*")).map(|(_, weight)| *weight)
    };
    let mut best = None;
    for encoding in Encoding::ALL {
        let weight = weight(encoding.name()).unwrap_or(0);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((encoding, weight));
        }
    }
    // Plain bytes are acceptable by default, but not preferred.
    let plain = items.iter().find(|(name, _)| name.eq_ignore_ascii_case("identity"));
    let plain = plain.map_or(0, |(_, weight)| *weight);
    best.filter(|(_, weight)| *weight >= plain).map(|(encoding, _)| encoding)
}

/// Returns name and weight of a list element, in thousandths; `None` if malformed.
fn weighed(item: &str) -> Option<(&str, u16)> {
    let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
    let weight = match parameters.trim() {
        "" => 1000,
        parameter => {
            let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
            thousandths(value)?
        }
    };
    Some((name.trim(), weight))
}

/// Parses `1`, `0.5`, `0.125`: at most three decimals, at most 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1")
        || decimals.len() > 3
        || !decimals.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    let value = if whole == "1" { 1000 + decimals } else { decimals };
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn chosen(value: &str) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
        preferred(&headers)
    }

    #[test]
    fn highest_weight_wins_and_brotli_wins_a_tie() {
        use Encoding::{Brotli, Gzip};
        for (value, wanted) in [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("br;q=0.5, gzip;q=0.9", Some(Gzip)),
            ("br;q=0, gzip", Some(Gzip)),
            ("br;q=0, *", Some(Gzip)),
            ("*", Some(Brotli)),
            ("*;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.2, gzip;q=0.5", Some(Gzip)),
            ("deflate", None),
            ("", None),
            ("br;q=1.1", None),
            ("br;q=high, gzip; q=0.001", Some(Gzip)),
        ] {
            assert_eq!(chosen(value), wanted, "{value}");
        }
        assert_eq!(preferred(&HeaderMap::new()), None);
    }

    #[test]
    fn several_header_lines_form_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT_ENCODING, "gzip;q=0.5".parse().unwrap());
        headers.append(header::ACCEPT_ENCODING, "br".parse().unwrap());
        assert_eq!(preferred(&headers), Some(Encoding::Brotli));
    }

    #[test]
    fn compressed_bytes_decompress_to_the_original() {
        let content = b"to be or not to be, ".repeat(500);
        let small = Encoding::Brotli.compress(&content).unwrap();
        let mut back = Vec::new();
        brotli::Decompressor::new(&small[..], 4096).read_to_end(&mut back).unwrap();
        assert!(back == content && small.len() < 100);
        let small = Encoding::Gzip.compress(&content).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut back).unwrap();
        assert!(back == content && small.len() < 200);
    }
}
