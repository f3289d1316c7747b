//! What kind of file a name of the frontend stands for, and what may be done with its bytes.

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// The value of `Content-Type`.
    pub(super) name: &'static str,
    /// Whether compressing it pays: images and fonts are compressed already.
    pub(super) is_text: bool,
}

/// The kind that the extension of `name` says.
pub(super) fn of(name: &str) -> MediaType {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    let (name, is_text) = match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => ("text/html; charset=utf-8", true),
        "css" => ("text/css; charset=utf-8", true),
        "js" | "mjs" => ("text/javascript; charset=utf-8", true),
        "txt" | "md" => ("text/plain; charset=utf-8", true),
        "json" | "map" => ("application/json", true),
        "webmanifest" => ("application/manifest+json", true),
        "xml" => ("application/xml", true),
        "svg" => ("image/svg+xml", true),
        "wasm" => ("application/wasm", true),
        "ttf" => ("font/ttf", true),
        "otf" => ("font/otf", true),
        "ico" => ("image/x-icon", true),
        "woff" => ("font/woff", false),
        "woff2" => ("font/woff2", false),
        "png" => ("image/png", false),
        "jpg" | "jpeg" => ("image/jpeg", false),
        "gif" => ("image/gif", false),
        "webp" => ("image/webp", false),
        "avif" => ("image/avif", false),
        "mp3" => ("audio/mpeg", false),
        "mp4" => ("video/mp4", false),
        "pdf" => ("application/pdf", false),
        _ => ("application/octet-stream", false),
    };
    MediaType { name, is_text }
}

/// Whether `name` has a hash of the content in it, so that another content would have another name: the
/// last part of the file's stem, after a `-` or a `.`, is of eight or more hexadecimal digits with a
/// letter and a numeral among them, or of eight characters with a capital, a small letter and a
/// numeral, as bundlers write it. What looks otherwise is asked for again each time, which costs a 304.
pub(super) fn has_hash(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let Some((stem, _)) = file.rsplit_once('.') else { return false };
    // A source map is called as its script is, with an extension more.
    let stem = [".js", ".mjs", ".css"].iter().find_map(|it| stem.strip_suffix(it)).unwrap_or(stem);
    let Some(at) = stem.rfind(['-', '.']) else { return false };
    let last = &stem.as_bytes()[at + 1..];
    let has = |kind: fn(&u8) -> bool| last.iter().any(kind);
    let is_hex = last.len() >= 8
        && last.iter().all(u8::is_ascii_hexdigit)
        && has(u8::is_ascii_alphabetic)
        && has(u8::is_ascii_digit);
    let is_mixed = last.len() == 8
        && last.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit);
    is_hex || is_mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_by_the_extension_alone() {
        assert_eq!(of("a/app.JS").name, "text/javascript; charset=utf-8");
        assert!(of("index.html").is_text);
        assert!(!of("logo.png").is_text);
        for unknown in ["LICENSE", "a.js/b", "x."] {
            assert_eq!(of(unknown).name, "application/octet-stream", "{unknown}");
        }
    }

    #[test]
    fn a_hash_is_told_from_a_word() {
        for hashed in [
            "index-BX3k9a2Q.js",
            "assets/main.0a1b2c3d.css",
            "chunk-0123456789abcdef0123.mjs",
            "index-BX3k9a2Q.js.map",
        ] {
            assert!(has_hash(hashed), "{hashed}");
        }
        for plain in [
            "index.html",
            "my-component.js",
            "polyfill.es2020.js",
            "icon-1024x1024.png",
            "report-20240101.json",
            "deadbeef",
            "0a1b2c3d.js",
            "assets-0a1b2c3d/app.js",
            "a-deadbeef.js",
        ] {
            assert!(!has_hash(plain), "{plain}");
        }
    }
}
