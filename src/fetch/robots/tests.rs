use super::*;
use proptest::prelude::*;

fn allows(file: &str, agent: &str, path: &str) -> bool {
    Robots::read(file.as_bytes()).allows(agent, path)
}

/// RFC 9309 §5.1, the file and what it means to each crawler.
#[test]
fn the_standards_simple_example() {
    let file = "User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/\n\n\
        User-Agent: foobot\nDisallow:/\nAllow:/example/page.html\nAllow:/example/allowed.gif\n\n\
        User-Agent: barbot\nUser-Agent: bazbot\nDisallow: /example/page.html\n\n\
        User-Agent: quxbot\n";
    for (agent, path, allowed) in [
        ("foobot", "/example/page.html", true),
        ("foobot", "/example/allowed.gif", true),
        ("foobot", "/", false),
        ("FooBot", "/publications/", false),
        ("barbot", "/example/page.html", false),
        ("bazbot", "/example/page.html", false),
        ("barbot", "/a.gif", true),
        ("quxbot", "/example/", true),
        ("other", "/a.gif", false),
        ("other", "/a.gif?x", true),
        ("other", "/example/page.html", false),
        ("other", "/publications/a", true),
        ("", "/example/", false),
    ] {
        assert_eq!(allows(file, agent, path), allowed, "{agent} {path}");
    }
}

/// RFC 9309 §5.2: the longest pattern decides.
#[test]
fn the_standards_longest_match() {
    let file = "User-Agent: foobot\nAllow: /example/page/\n\
        Disallow: /example/page/disallowed.gif\n";
    assert!(!allows(file, "foobot", "/example/page/disallowed.gif"));
    assert!(allows(file, "foobot", "/example/page/other.gif"));
    assert!(allows(file, "foobot", "/example/"));
    let equal = "User-agent: *\nDisallow: /a\nAllow: /a\n";
    assert!(allows(equal, "x", "/a"), "Allow wins between equals");
}

/// RFC 9309 §2.2.1: groups of one token are one group, in any case; an unknown token takes `*`.
#[test]
fn groups_are_merged_and_found_by_the_product_token() {
    let file = "disallow: /nobody\nuser-agent: ExampleBot\ndisallow: /foo\ndisallow: /bar\n\
        user-agent: *\ndisallow: /star\nuser-agent: examplebot/2.1\ndisallow: /baz\n";
    for (path, allowed) in
        [("/foo", false), ("/bar", false), ("/baz", false), ("/star", true), ("/nobody", true)]
    {
        assert_eq!(allows(file, "EXAMPLEBOT", path), allowed, "{path}");
    }
    assert!(!allows(file, "ExampleBotNews", "/star"), "a longer token is another crawler");
    assert!(allows(file, "other", "/foo"));
    for (user_agent, expected) in [
        ("Forebay/0.1.0", "Forebay"),
        ("Mozilla/5.0 (compatible; X)", "Mozilla"),
        ("a_b-c d", "a_b-c"),
        ("7", ""),
        ("", ""),
    ] {
        assert_eq!(token(user_agent.as_bytes()), expected);
    }
}

/// RFC 9309 §2.2.2 and §2.2.3: the table of encodings, and the two special characters.
#[test]
fn patterns_and_paths_have_one_spelling() {
    for (pattern, path, fits) in [
        ("/foo/bar?baz=quz", "/foo/bar?baz=quz", true),
        ("/foo/bar?baz=http%3A%2F%2Fa", "/foo/bar?baz=http%3a%2f%2fa", true),
        ("/foo/bar/\u{30c4}", "/foo/bar/%E3%83%84", true),
        ("/foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", true),
        ("/foo/bar/%62%61%7A", "/foo/bar/baz", true),
        ("/foo/bar/baz", "/foo/bar/%62%61%7a", true),
        ("/a%2Fb", "/a/b", false),
        ("/path/file-with-a-%2A.html", "/path/file-with-a-*.html", true),
        ("/path/foo-%24", "/path/foo-$", true),
        ("/a$b", "/a$b", true),
        ("/a$b", "/a", false),
        ("/%zz", "/%zz", true),
        ("/", "/anything", true),
        ("/fish", "/fish.html", true),
        ("/fish", "/Fish", false),
        ("/fish/", "/fish", false),
        ("/fish*", "/fishheads/yummy", true),
        ("/*.php", "/folder/any.php.file.html", true),
        ("/*.php", "/windows.PHP", false),
        ("/*.php$", "/folder/filename.php", true),
        ("/*.php$", "/filename.php?parameters", false),
        ("/*.php$", "/filename.php5", false),
        ("/fish*.php", "/fishheads/catfish.php?parameters", true),
        ("/a$", "/a", true),
        ("/a$", "/ab", false),
        ("/a*b$", "/aXbXb", true),
        ("/a*a$", "/a", false),
        ("*", "/x", true),
        ("$", "/x", false),
        ("*$", "/x", true),
        ("/**a", "/bca", true),
        ("fish", "/fish", false),
    ] {
        let file = format!("User-agent: *\nDisallow: {pattern}\n");
        assert_eq!(!allows(&file, "x", path), fits, "{pattern} {path}");
    }
}

#[test]
fn lines_are_read_leniently() {
    let everything =
        "\u{feff}  USER-AGENT :  *  # all\r\rdisallow\t:\t/a # not this\r\nDISALLOW:/b";
    assert!(!allows(everything, "x", "/a") && !allows(everything, "x", "/b"));
    assert!(allows(everything, "x", "/c"));
    assert!(allows("User-agent: *\nDisallow:\n", "x", "/"), "an empty rule is none");
    assert!(allows("User-agent: *\nDisallow /\n", "x", "/"), "a line without a colon is none");
    assert!(allows("<html>User-agent: *\nDisallow: /", "x", "/"), "no file at all");
    assert!(allows("User-agent: *\nDisallow: /\n", "x", "/robots.txt"), "always");
    // §2.2.4: other records end no group.
    let between = "User-agent: a\nSitemap: http://x/\nCrawl-delay: 2\nUser-agent: b\nDisallow: /";
    assert!(!allows(between, "a", "/") && !allows(between, "b", "/"));
}

#[test]
fn the_delay_is_the_groups_and_bounded() {
    let delay = |file: &str| Robots::read(file.as_bytes()).crawl_delay("me");
    let seconds = |s| Some(Duration::from_secs_f64(s));
    assert_eq!(delay("User-agent: *\nCrawl-delay: 1.5"), seconds(1.5));
    assert_eq!(delay("User-agent: me\nUser-agent: *\nCrawl-delay: 3"), seconds(3.0));
    assert_eq!(delay("User-agent: me\nDisallow:\n\nUser-agent: *\nCrawl-delay: 3"), None);
    assert_eq!(delay("User-agent: *\nCrawl-delay: 1\nCrawl-delay: 2"), seconds(2.0));
    assert_eq!(delay("User-agent: *\nCrawl-delay: 1e30"), Some(CRAWL_DELAY_MAX));
    for odd in ["-1", "nan", "x", "", "1 s"] {
        assert_eq!(delay(&format!("User-agent: *\nCrawl-delay: {odd}")), None, "{odd}");
    }
    assert_eq!(delay("Crawl-delay: 9\nUser-agent: *"), None, "of no group");
}

#[test]
fn only_whole_lines_of_the_first_half_megabyte_count() {
    let filler = "# filler\n".repeat(ROBOTS_BYTES_MAX / 9 + 1);
    let (head, rule) = ("User-agent: *\nDisallow: /a\n", "Disallow: /b\n");
    let file = format!("{head}{filler}{rule}");
    assert!(!allows(&file, "x", "/a") && allows(&file, "x", "/b"));
    // Cut in the middle of `Disallow: /private`, which must not become `Disallow: /`.
    let line = "Disallow: /private\n";
    let room = ROBOTS_BYTES_MAX - head.len() - "Disallow: /".len();
    let file = format!("{head}{}\n{line}", "#".repeat(room - 1));
    assert!(allows(&file, "x", "/public"));
}

#[test]
fn a_hostile_file_is_read_and_asked_in_turns() {
    let file = format!("User-agent: *\n{}", "Allow:/*a*a*a*b\n".repeat(40_000));
    let mut parser = Parser::new(file.as_bytes());
    let mut turns = 1;
    while !parser.step() {
        turns += 1;
    }
    assert!(turns >= ROBOTS_BYTES_MAX / ROBOTS_TURN_BYTES / 2, "{turns}");
    let robots = parser.finish();
    assert!(robots.weight() < 8 * ROBOTS_BYTES_MAX, "{}", robots.weight());
    let path = format!("/{}", "a".repeat(8000));
    let mut check = Check::new(&robots, "x", &path);
    let mut turns = 0;
    while check.step(&robots).is_none() {
        turns += 1;
    }
    assert!(turns > 1000, "{turns}");
}

#[test]
fn stars_in_a_row_are_one() {
    let file = format!("User-agent: *\nDisallow: /{}\n", "*".repeat(400_000));
    let robots = Robots::read(file.as_bytes());
    assert_eq!(robots.patterns, b"/*");
    assert!(!robots.allows("x", "/any"));
}

#[test]
fn a_pattern_beyond_its_limit_forbids_more_and_allows_nothing() {
    let long = format!("/{}", "a".repeat(ROBOTS_PATTERN_BYTES_MAX));
    for (file, path, allowed) in [
        (format!("User-agent: *\nDisallow: {long}/b$\n"), format!("{long}/c"), false),
        (format!("User-agent: *\nDisallow: /\nAllow: {long}\n"), long.clone(), false),
        (format!("User-agent: *\nDisallow: {long}\n"), "/a".to_owned(), true),
    ] {
        assert_eq!(allows(&file, "x", &path), allowed, "{}", &file[..40]);
    }
}

#[test]
fn the_cost_of_a_path_is_charged_by_its_patterns() {
    // Many stars with a character between them, and a path that has them all.
    let star = "*a".repeat(ROBOTS_PATTERN_BYTES_MAX / 2 - 4);
    let file = format!("User-agent: *\n{}", format!("Disallow: /{star}$\n").repeat(60));
    let robots = Robots::read(file.as_bytes());
    let mut check = Check::new(&robots, "x", &format!("/{}b", "a".repeat(8000)));
    let turns = (0..).take_while(|_| check.step(&robots).is_none()).count();
    assert!(turns >= 50, "a turn for each: {turns}");
    // A short path has too few characters for any of them: no search, no turn.
    let mut check = Check::new(&robots, "x", "/aaaa");
    assert_eq!(check.step(&robots), Some(true));
}

#[test]
fn an_agent_is_found_among_many() {
    let others: String = (0..20_000)
        .map(|n| {
            let name: String = format!("{n}").bytes().map(|b| char::from(b + 49)).collect();
            format!("User-agent: z{name}\n")
        })
        .collect();
    let file = format!("{others}Disallow: /\n\nUser-agent: me\nDisallow: /me\nCrawl-delay: 2");
    let robots = Robots::read(file.as_bytes());
    assert_eq!(robots.groups_of("ME"), [1]);
    assert_eq!(robots.crawl_delay("me"), Some(Duration::from_secs(2)));
    assert!(robots.allows("me", "/") && !robots.allows("me", "/me") && !robots.allows("zb", "/"));
    assert!(robots.weight() > 20_000 * 48);
    let same = "User-agent: a\n".repeat(20_000);
    assert_eq!(Robots::read(same.as_bytes()).groups_of("a"), [0], "once for its group");
}

/// The slow, obvious twin of [`fits`]: tries every length for each `*`.
fn fits_slowly(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => true,
        b"$" => path.is_empty(),
        [b'*', rest @ ..] => (0..=path.len()).any(|at| fits_slowly(rest, &path[at..])),
        [first, rest @ ..] => path.first() == Some(first) && fits_slowly(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn matching_is_what_it_is_slowly(pattern in "[ab*]{0,8}\\$?", path in "[ab]{0,10}") {
        prop_assert_eq!(
            fits(pattern.as_bytes(), path.as_bytes()),
            fits_slowly(pattern.as_bytes(), path.as_bytes())
        );
    }

    /// What is left out because it is too long, or not searched for, would not have fitted either.
    #[test]
    fn a_file_says_what_its_pattern_says_slowly(pattern in "[ab*]{0,12}\\$?", path in "[ab]{0,4}") {
        let robots = Robots::read(format!("User-agent: *\nDisallow: /{pattern}\n").as_bytes());
        let (pattern, path) = (format!("/{pattern}"), format!("/{path}"));
        let expected = !fits_slowly(pattern.as_bytes(), path.as_bytes());
        prop_assert_eq!(robots.allows("x", &path), expected);
    }

    #[test]
    fn any_bytes_are_a_file(file in proptest::collection::vec(any::<u8>(), 0..400), path in "/.{0,20}") {
        let robots = Robots::read(&file);
        let _ = (robots.allows("x", &path), robots.crawl_delay("x"));
    }

    /// However a path is escaped, it is the same path.
    #[test]
    fn a_path_means_the_same_in_every_spelling(path in "/[a-z0-9._~-]{0,12}", prefix in 0_usize..6) {
        let escaped: String = path.bytes().map(|b| match b {
            b'/' => "/".to_owned(),
            b => format!("%{b:02x}"),
        }).collect();
        let pattern = &path[..path.len().min(prefix + 1)];
        let file = format!("User-agent: *\nDisallow: {pattern}\n");
        prop_assert_eq!(allows(&file, "x", &path), allows(&file, "x", &escaped));
        prop_assert!(!allows(&file, "x", &path));
    }
}
