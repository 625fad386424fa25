package ui_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/peers"
)

// tab is a page in a headless browser.
type tab struct {
	*bench
	ctx context.Context
}

// chromium is the browser that the tests share.
var chromium struct {
	once sync.Once
	ctx  context.Context
	stop context.CancelFunc
	err  error
}

// tab opens a page in a browser, with cookies of its own.
func (b *bench) tab() *tab {
	b.t.Helper()
	program := peers.Find(b.t, "chromium-headless-shell")
	chromium.once.Do(func() {
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.Flag("disable-dev-shm-usage", true))
		ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
		chromium.ctx, _ = chromedp.NewContext(ctx)
		chromium.stop = stop
		chromium.err = chromedp.Do(chromium.ctx)
	})
	if chromium.err != nil {
		b.t.Fatalf("%s: %v", program, chromium.err)
	}
	ctx, stop := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext())
	b.t.Cleanup(stop)
	c := &tab{b, ctx}
	c.do("start")
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		b.t.Fatal(err)
	}
	return c
}

// stopChromium ends the browser, if it was started.
func stopChromium() {
	if chromium.ctx != nil {
		_ = chromedp.Cancel(chromium.ctx) // waits until it has ended
		chromium.stop()
	}
}

// do carries out actions.
func (c *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	if err := chromedp.Do(c.ctx, actions...); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// ask evaluates a script in the page.
func ask[T any](c *tab, what, script string) T {
	c.t.Helper()
	v, err := chromedp.Run(c.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	return v
}

// sees waits until the text of an element contains what is wanted, also if another page
// comes meanwhile.
func (c *tab) sees(selector, want string) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	condition := fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, want)
	var err error
	for time.Now().Before(deadline) {
		_, err = chromedp.Run(c.ctx, chromedp.Poll[bool](condition, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(10*time.Second)))
		if err == nil {
			return
		}
	}
	text, _ := chromedp.Run(c.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	c.t.Fatalf("%s does not show %q: %v\n%s", selector, want, err, text)
}

// clicks clicks an element.
func (c *tab) clicks(selector string) {
	c.t.Helper()
	c.do("click "+selector, chromedp.Click(selector))
}

// types replaces what is in a field.
func (c *tab) types(selector, text string) {
	c.t.Helper()
	ask[string](c, selector, fmt.Sprintf(`document.querySelector(%q).value = ""`, selector))
	c.do("type into "+selector, chromedp.SendKeys(selector, text))
}

func (c *tab) opens(path string) {
	c.t.Helper()
	c.do("open "+path, chromedp.Navigate(c.server.URL+path))
}

// signIn gives the browser the session of a user.
func (c *tab) signIn(role operations.Role) {
	c.t.Helper()
	id, _, err := c.access.Login(c.t.Context(), name(role), password, "127.0.0.1")
	if err != nil {
		c.t.Fatal(err)
	}
	yes := true
	if _, err := chromedp.Call(c.ctx, network.SetCookie, network.SetCookieParams{Name: "iadms_session", Value: id, URL: c.server.URL, HTTPOnly: &yes}); err != nil {
		c.t.Fatal(err)
	}
}

// audit is what a script finds wrong with a page.
//
// Every control has a name, headings are nested, nothing scrolls sideways, and the contrast
// of text with what is behind it is at least 4.5.
const audit = `(() => {
	const wrong = [];
	const say = (what, e) => wrong.push(what + ": " + (e ? e.outerHTML.slice(0, 150) : ""));
	const shown = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
	for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")) {
		const by = (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent || "").join("");
		const name = e.getAttribute("aria-label") || by || [...(e.labels || [])].map((l) => l.textContent).join("") ||
			(/^(A|BUTTON|SUMMARY)$/.test(e.tagName) ? e.textContent : "");
		if (!name.trim()) say("a control without a name", e);
	}
	for (const e of document.querySelectorAll("svg[role=img]")) if (!e.getAttribute("aria-label")) say("a picture without a name", e);
	for (const e of document.querySelectorAll("pre, [tabindex]")) if (e.tabIndex > 0) say("an order of its own", e);
	let level = 0;
	for (const h of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
		const n = Number(h.tagName[1]);
		if (n > level + 1) say("a heading that skips a level", h);
		level = n;
	}
	if (document.querySelectorAll("h1").length !== 1) say("not one h1");
	if (document.querySelectorAll("main").length !== 1) say("not one main");
	if (!document.documentElement.lang) say("no language");
	const root = document.scrollingElement;
	if (root.scrollWidth > innerWidth) {
		say("scrolls sideways: " + root.scrollWidth + " > " + innerWidth,
			[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && shown(e)).pop());
	}
	const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
	const light = ([r, g, b]) => {
		const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
		return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
	};
	const ground = (e) => {
		for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
		return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
	};
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const seen = new Set();
	for (let n = walker.nextNode(); n; n = walker.nextNode()) {
		const e = n.parentElement;
		if (!n.textContent.trim() || seen.has(e) || !shown(e) || /^(SCRIPT|OPTION)$/.test(e.tagName)) continue;
		seen.add(e);
		const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
		const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (contrast < 4.5) say("contrast " + contrast.toFixed(2), e);
	}
	for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
		const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
		if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) say("contrast of a control", e);
	}
	return wrong;
})()`

// TestPagesInBrowser looks at every page in both colour schemes, wide and narrow.
// With IAD_SCREENSHOTS=DIR it stores pictures.
func TestPagesInBrowser(t *testing.T) {
	b := newBench(t)
	b.fill()
	b.as(operations.Admin).post("/access/tokens", "token.name", "ci", "token.role", "viewer", "token.days", "30")
	c := b.tab()
	var mu sync.Mutex
	var problems []string
	err := chromedp.Listen(c.ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			problems = append(problems, "an exception: "+e.ExceptionDetails.Text)
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, b.server.URL) && !strings.HasPrefix(e.Request.URL, "data:") { // pictures of date fields
				problems = append(problems, "loads "+e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	look := func(path string) {
		for _, width := range []int64{1280, 390} {
			c.do(path, chromedp.EmulateViewport(width, 800))
			c.opens(path)
			for _, scheme := range []string{"light", "dark"} {
				what := fmt.Sprintf("%s, %s, %d", path, scheme, width)
				media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
				if _, err := chromedp.Call(c.ctx, emulation.SetEmulatedMedia, media); err != nil {
					t.Fatal(err)
				}
				if dir := os.Getenv("IAD_SCREENSHOTS"); dir != "" {
					picture, err := chromedp.Run(c.ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					file := regexp.MustCompile(`\W+`).ReplaceAllString(strings.Trim(path, "/")+"-"+scheme, "_") + fmt.Sprintf("-%d.png", width)
					if err := os.WriteFile(filepath.Join(dir, file), picture, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				ask[bool](c, what, `document.querySelectorAll("details").forEach((d) => d.open = true) === undefined`)
				for _, w := range ask[[]string](c, what, audit) {
					t.Errorf("%s: %s", what, w)
				}
				if ask[string](c, what, "document.title") == "owned" {
					t.Errorf("%s: a script of a device ran", what)
				}
			}
		}
	}
	look("/login")
	look("/api/v1/")
	c.signIn(operations.Admin)
	for _, path := range allPages {
		look(path)
	}
	look("/nothing")
	mu.Lock()
	defer mu.Unlock()
	for _, p := range problems {
		t.Error(p)
	}
}

// TestKeyboard: every control of a page can be reached with the tabulator, in the order in
// which they are in the page, and shows that it has the focus.
func TestKeyboard(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.tab()
	c.signIn(operations.Admin)
	c.do("size", chromedp.EmulateViewport(1280, 800))
	for _, path := range []string{"/", "/campaigns/awaiting", "/questions", "/access"} {
		c.opens(path)
		total := ask[int](c, path, `window.all = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")].filter((e) => e.checkVisibility()); all.length`)
		last := -1
		for last < total-1 {
			c.do("tabulator", chromedp.KeyEvent(kb.Tab))
			at := ask[struct {
				At      int
				Outline string
				Skipped bool
			}](c, path, fmt.Sprintf(`(() => {
				const e = document.activeElement, style = getComputedStyle(e), at = all.indexOf(e);
				// Of a group of radio buttons one gets the focus.
				const skipped = at > %d && all.slice(%d + 1, at).every((s) => s.type === "radio");
				return { At: at, Outline: style.outlineStyle === "none" ? "" : style.outlineWidth, Skipped: skipped };
			})()`, last, last))
			if at.At != last+1 && !at.Skipped {
				t.Fatalf("%s: the focus goes from control %d to %d of %d", path, last, at.At, total)
			}
			if at.Outline != "3px" {
				t.Errorf("%s: control %d does not show that it has the focus (%q)", path, at.At, at.Outline)
			}
			last = at.At
		}
		if total < 12 {
			t.Errorf("%s has only %d controls", path, total)
		}
	}
}

// TestCampaignInBrowser clicks a campaign through, with JavaScript: what is typed is counted,
// and pages follow what happens.
func TestCampaignInBrowser(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.tab()
	c.opens("/campaigns/new")
	c.types("#user", name(operations.Operator))
	c.types("#password", password+kb.Enter)
	c.sees("h1", "New campaign")
	c.types("#f-filter", `site =`)
	c.sees("#count", "cannot be understood")
	c.types("#f-filter", `site == "paris"`)
	c.sees("#count", "20 devices match")
	c.types("#f-title", "Summer")
	c.do("operation", chromedp.SetValue("#f-operation", "backup"))
	c.clicks("#f-approval_required") // it is set at first
	c.clicks(`button[value="save"]`)
	c.sees("h1", "Summer")
	c.sees("#live-state", "draft")
	c.clicks(`form[action$="/submit"] button`)
	c.sees("#live-state", "scheduled")
	c.sees("#live-status", "Live")
	b.service.Start("summer")
	c.sees("#live-state", "20 pending")
	b.service.SetRun("summer", "gw-001", func(r *fleet.Run) {
		r.State, r.Started, r.Progress = fleet.RunRunning, time.Now(), fleet.Progress{Step: 110, Phase: "transferring", Percent: 70}
	})
	c.sees("#live-runs", "110 transferring 70 %")
	b.service.Ask("summer", "gw-001", "backupFailed", "the backup failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	c.sees("#live-state", "1 open questions")
	c.clicks(`#live-state a[href="/questions"]`)
	c.sees("h1", "Questions")
	mine := `[...document.querySelectorAll("section.card")].find((s) => s.innerText.includes("the backup failed")).querySelector("form").id = "mine"`
	ask[string](c, "form", mine)
	c.clicks(`#mine input[value="retry"]`)
	c.clicks(`#mine button`)
	c.sees(".notice", "The answer was given")
	if r := b.service.Run("summer", "gw-001"); r.Answer == nil || r.Answer.Choice != fleet.ChoiceRetry {
		t.Errorf("answer: %+v", r.Answer)
	}

	// While somebody fills in a form, it stays as it is, although a change was reported.
	c.opens("/questions")
	c.sees("#live-status", "Live")
	c.clicks(`#live-questions input[value="give-up"]`)
	ask[bool](c, "count", `window.loaded = 0, window.fetch = ((real) => async (...a) => { const r = await real(...a); window.loaded++; return r; })(window.fetch), true`)
	b.service.Ask("summer", "gw-004", "backupFailed", "another one failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	c.do("renewed", chromedp.Poll[chromedp.Void](`window.loaded > 0`, chromedp.WithPollingTimeout(time.Minute)))
	if !ask[bool](c, "form", `document.querySelector("#live-questions input:checked")?.value === "give-up"`) {
		t.Error("an answer that was chosen was lost when the page was renewed")
	}

	c.opens("/campaigns/summer")
	c.sees("#live-state", "1 open questions")
	for _, command := range []struct{ name, state string }{{"pause", "paused"}, {"resume", "running"}, {"stop", "stopped"}} {
		c.clicks(`form[action$="/` + command.name + `"] button`)
		c.sees("#live-state", command.state)
	}
	d, err := b.service.Campaign(t.Context(), operations.Caller{Role: operations.Viewer}, "summer")
	if err != nil || d.Campaign.State != fleet.CampaignStopped {
		t.Errorf("%+v, %v", d, err)
	}
}
