//! Request heads that more than one bench feeds.

/// The least a request can be.
pub(crate) const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// Twenty fields, as a browser sends them through a proxy.
pub(crate) const REALISTIC: &[u8] = b"GET /articles/2026/11/the-quick-brown-fox?page=2&sort=newest HTTP/1.1\r\n\
Host: www.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.7\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.com/articles/2026/11/\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; csrftoken=abcdefghijklmnopqrstuvwxyz012345; theme=dark\r\n\
Cache-Control: max-age=0\r\n\
Connection: keep-alive\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-CH-UA: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
Sec-CH-UA-Mobile: ?0\r\n\
Sec-CH-UA-Platform: \"Linux\"\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-User: ?1\r\n\
X-Forwarded-For: 203.0.113.7\r\n\
X-Forwarded-Proto: https\r\n\r\n";
