//! Pages of our own making: articles with navigation, lists, tables and code, of several sizes,
//! from a fixed seed.

use std::fmt::Write;

const WORDS: &str = "water weir mill river spring stone wheel turbine level gate flow bank bridge \
                     channel valley rain the a of and to in with after before under over along when \
                     opens closes carries turns holds rises falls measured quiet heavy old new slow";

/// A small generator of numbers (splitmix64); the pages need variety, not chance.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).expect("31 bits") % n
    }
}

/// `count` pages, between 10 and 400 kB.
pub(crate) fn generated(count: usize) -> Vec<String> {
    let mut numbers = Numbers(7);
    (0..count).map(|n| page(&mut numbers, 4 + (n * 13) % 90)).collect()
}

fn page(numbers: &mut Numbers, sections: usize) -> String {
    let mut html = String::from("<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>");
    sentence(&mut html, numbers, 6);
    html.push_str("</title><style>.a{color:#123}</style><script>var data={\"a\":[1,2,3]};</script></head><body>");
    html.push_str("<div class=header><ul class=nav>");
    for _ in 0..40 {
        html.push_str("<li class=nav-item><a class=nav-link href=\"/section/");
        let _ = write!(html, "{}\">", numbers.below(1000));
        sentence(&mut html, numbers, 2);
        html.push_str("</a></li>");
    }
    html.push_str("</ul></div><div class=\"content main\"><article><h1>");
    sentence(&mut html, numbers, 6);
    html.push_str("</h1>");
    for n in 0..sections {
        section(&mut html, numbers, n);
    }
    html.push_str("</article></div><div class=\"sidebar related\">");
    for _ in 0..20 {
        html.push_str("<div class=card><a href=\"../other\"><img src=/i.jpg alt=\"\"><span>");
        sentence(&mut html, numbers, 8);
        html.push_str("</span></a></div>");
    }
    html.push_str(
        "</div><footer class=footer><p>All rights reserved &copy; 2024</p></footer></body></html>",
    );
    html
}

fn section(html: &mut String, numbers: &mut Numbers, n: usize) {
    let _ = write!(html, "<h2 id=s{n}>");
    sentence(html, numbers, 4);
    html.push_str("</h2>");
    for _ in 0..4 {
        html.push_str("<p>");
        for _ in 0..3 {
            sentence(html, numbers, 18);
            html.push_str(". ");
        }
        html.push_str("See <a href=\"../next?a=1&amp;b=2\">the <em>next</em> page</a>.</p>");
    }
    match n % 3 {
        0 => html.push_str(
            "<ul><li>one of <b>three</b></li><li>two</li><li>three &mdash; last</li></ul>",
        ),
        1 => html.push_str(
            "<pre><code class=language-c>if (level &gt; MAX) {\n    open(gate);\n}</code></pre>",
        ),
        _ => {
            html.push_str("<table><thead><tr><th>Day</th><th>Level</th></tr></thead><tbody>");
            for day in 0..6 {
                let _ = write!(html, "<tr><td>{day}</td><td>{} cm</td></tr>", numbers.below(300));
            }
            html.push_str("</tbody></table>");
        }
    }
}

fn sentence(html: &mut String, numbers: &mut Numbers, words: usize) {
    let all: Vec<&str> = WORDS.split_whitespace().collect();
    for n in 0..words {
        if n > 0 {
            html.push(' ');
        }
        html.push_str(all[numbers.below(all.len())]);
    }
}
