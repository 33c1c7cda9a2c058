// Ask for consent, and let it be changed again. See the page on consent in the docs.
(() => {
  "use strict";
  if (window.mpAsgi) return;
  let notices = "@NOTICES@";
  const script = findScript("@MOUNT@" + "/banner.js");
  const endpoint = new URL("consent", script.src);
  let language = chooseLanguage();
  const tabs = window.mpAsgiTabs = window.mpAsgiTabs || new BroadcastChannel("mp-asgi");
  const NOT_CHOSEN = /gpc|dnt|^policy|default|cookieless|disabled/;
  const DENIED_BY_SCRIPT = "mp_choice=denied; Max-Age=34128000"; // 395 days, as the server's own
  const RIGHT_TO_LEFT = /^(ar|ckb|dv|fa|he|ps|sd|ug|ur|yi)\b/i;

  const STYLE = `
    :host { all: initial; }
    @media print { :host { display: none; } }
    section {
      --ground: #fff; --tint: #eef1f6; --text: #1b1f26; --quiet: #4a5160;
      --line: #c3c9d4; --key: #26344d; --on-key: #fff; --focus: #0b57d0; --wrong: #a8191f;
      position: fixed; inset: auto 0 1rem; z-index: 2147483647; box-sizing: border-box;
      width: min(42rem, 100% - 2rem); max-height: calc(100vh - 2rem); overflow: auto;
      margin: 0 auto; padding: 1.25rem 1.5rem 1.5rem; border: 1px solid var(--line);
      border-radius: .75rem; background: var(--ground); color: var(--text);
      box-shadow: 0 .5rem 2rem rgb(0 0 0 / .25); font: 1rem/1.5 system-ui, sans-serif;
      overflow-wrap: break-word;
    }
    @media (prefers-color-scheme: dark) {
      section {
        --ground: #1d2026; --tint: #2a2f38; --text: #eceef2; --quiet: #b8bfcb;
        --line: #4a515e; --key: #e3e7ef; --on-key: #14161a; --focus: #9ec1ff; --wrong: #ffaaa4;
      }
    }
    @media (prefers-reduced-motion: no-preference) {
      section { animation: rise .25s ease-out; }
      @keyframes rise { from { opacity: 0; transform: translateY(1rem); } }
    }
    @media (max-width: 30rem) {
      section { inset: auto 0 .5rem; width: calc(100% - 1rem); max-height: calc(100vh - 1rem);
                padding: 1rem; }
    }
    h2 { margin: 0; padding-inline-end: 2.5rem; font-size: 1.125rem; line-height: 1.35; }
    h2:focus { outline: none; }
    p { margin: .5rem 0 0; white-space: pre-line; }
    a { color: inherit; }
    .status { color: var(--quiet); }
    .gpc { padding: .625rem .875rem; border-inline-start: .25rem solid var(--focus);
           border-radius: .25rem; background: var(--tint); }
    .failed { color: var(--wrong); font-weight: 600; }
    .failed:empty { display: none; }
    div { display: grid; gap: .75rem; margin-top: 1rem;
          grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr)); }
    button { font: inherit; color: inherit; cursor: pointer; }
    div button { min-height: 2.75rem; padding: .5rem 1rem; border: 1px solid var(--key);
                 border-radius: .5rem; background: var(--key); color: var(--on-key);
                 font-weight: 600; }
    div button:hover { text-decoration: underline; }
    .close { position: absolute; inset-block-start: .75rem; inset-inline-end: .75rem;
             width: 2.25rem; height: 2.25rem; padding: 0; border: 0; border-radius: .5rem;
             background: none; font-size: 1.5rem; line-height: 1; }
    :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
  `;

  let host = null;
  let isPrompt = false; // it came by itself
  let opener = null;
  let wanted = ""; // the last answer; empty while none is under way

  function findScript(path) {
    // A module is no current script, and an element of the page's may take a property's name.
    const isOurs = (found) => found instanceof HTMLScriptElement
      && found.src.startsWith(`${location.origin}/`) && new URL(found.src).pathname.endsWith(path);
    return [document.currentScript, ...document.querySelectorAll("script")].find(isOurs)
      || { src: location.origin + path, dataset: {} };
  }

  function chooseLanguage() {
    const offered = Object.keys(notices);
    for (const wish of [script.dataset.lang, document.documentElement.lang]) {
      const parts = (tag) => (tag || "").toLowerCase().split("-");
      const found = offered.find((tag) => `${parts(tag)}` === `${parts(wish)}`)
        || offered.find((tag) => parts(tag)[0] === parts(wish)[0]);
      if (found) return found;
    }
    return offered[0];
  }

  async function call(options) {
    const signal = AbortSignal.timeout(10000);
    const response = await fetch(endpoint, { cache: "no-store", signal, ...options });
    const answer = await response.json();
    if (!response.ok && !answer.state) throw new Error(answer.error);
    return answer;
  }

  function post(analytics, state) {
    const { digest, digest_gpc } = notices[language];
    const notice = state.gpc ? digest_gpc : digest;
    const override_gpc = state.gpc && analytics === "granted";
    return call({
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ analytics, language, notice, source: "banner", override_gpc }),
      keepalive: true,
    });
  }

  // One answer at a time, or a slow "yes" would arrive after the "no" that took it back.
  async function choose(analytics, state) {
    const isBusy = wanted !== "";
    wanted = analytics;
    if (isBusy) return;
    markBusy(true);
    let tried, finish;
    do {
      tried = wanted;
      finish = await attempt(tried, state);
    } while (wanted !== tried);
    wanted = "";
    markBusy(false);
    finish();
  }

  // Answers what is left to do if this stays the last word.
  async function attempt(analytics, state) {
    try {
      let answer = await post(analytics, state);
      if (answer.needs_reload) return () => reload(answer);
      if (answer.needs_override) return () => show(answer, true); // it was turned on meanwhile
      if (answer.state === "granted") {
        write("mp_choice=; Max-Age=0");
        answer = await call({}); // a browser that refuses cookies has kept nothing
      }
      if (answer.state !== analytics) throw new Error(answer.reason);
      return () => conclude(answer);
    } catch {
      if (analytics === "granted") return complain;
      // A refusal needs no server: this cookie counts as one from the next request on.
      write(DENIED_BY_SCRIPT);
      const reason = "script-denied";
      return () => conclude({ ...state, state: "denied", reason, needs_prompt: false });
    }
  }

  // The site's notice is another one now: show its words, and ask again.
  function reload(answer) {
    notices = answer.notices;
    language = chooseLanguage();
    show(answer, true);
  }

  function find(selector) {
    return host && host.shadowRoot.querySelector(selector);
  }

  function markBusy(isBusy) {
    if (host) find("section").setAttribute("aria-busy", isBusy);
  }

  function complain() {
    if (host) find(".failed").textContent = notices[language].failed;
  }

  function write(cookie) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${cookie}; Path=/; SameSite=Lax${secure}`;
  }

  function conclude(state) {
    close();
    document.dispatchEvent(new CustomEvent("mp-asgi:consent", { detail: state }));
    tabs.postMessage(state);
  }

  // Somebody else was answered: another tab, or a manager.
  function follow(state) {
    if (isPrompt && state.needs_prompt === false) close();
  }

  function close() {
    if (!host) return;
    const hadFocus = document.activeElement === host;
    moves.disconnect();
    host.remove();
    host = null;
    isPrompt = false;
    room.replaceSync("");
    if (hadFocus) giveFocusBack();
  }

  function giveFocusBack() {
    if (opener && opener.isConnected && opener !== document.body) return opener.focus();
    const main = document.querySelector("main, h1");
    if (!main) return;
    main.tabIndex = -1;
    main.focus({ preventScroll: true });
  }

  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function render(state, isReopened) {
    const texts = notices[language];
    const dir = RIGHT_TO_LEFT.test(language) ? "rtl" : "ltr";
    const section = make("section", { lang: language, dir });
    section.setAttribute("role", "region");
    section.setAttribute("aria-labelledby", "title");
    section.append(make("h2", { id: "title", tabIndex: -1, textContent: texts.title }));
    if (isReopened && texts[state.state] && !NOT_CHOSEN.test(state.reason)) {
      section.append(make("p", { className: "status", textContent: texts[state.state] }));
    }
    section.append(make("p", { textContent: texts.text }));
    if (state.gpc) section.append(make("p", { className: "gpc", textContent: texts.gpc }));
    if (texts.policy_url) {
      const link = make("a", { href: texts.policy_url, textContent: texts.policy_label });
      section.append(make("p", {}, link));
    }
    const button = (textContent, onclick) =>
      make("button", { type: "button", textContent, onclick });
    const failed = make("p", { className: "failed" });
    failed.setAttribute("role", "alert");
    const refuse = button(texts.refuse, () => choose("denied", state));
    const label = state.gpc ? texts.accept_gpc : texts.accept;
    const accept = button(label, () => choose("granted", state));
    const cross = button("×", close);
    cross.className = "close";
    cross.setAttribute("aria-label", texts.close);
    section.append(failed, make("div", {}, refuse, accept), cross);
    // Escape leaves everything as it is, as the cross does.
    section.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // a dialog around us stays open
      close();
    };
    return section;
  }

  // A page of which somebody takes the body out and puts another one in keeps the banner.
  const moves = new MutationObserver(() => { if (!host.isConnected) place(); });
  // No inline style: a strict Content-Security-Policy holds.
  const look = new CSSStyleSheet();
  const room = new CSSStyleSheet(); // so that the end of the page can be scrolled above us

  function place() {
    // All but an open modal dialog is inert.
    const dialog = [...document.querySelectorAll("dialog:modal")].pop();
    if (dialog) dialog.addEventListener("close", () => { if (host) place(); }, { once: true });
    (dialog || document.body).prepend(host); // first in the order of focus
    moves.observe(document.documentElement, { childList: true });
    moves.observe(document.body, { childList: true });
    const height = find("section").offsetHeight + 32;
    room.replaceSync(`html { scroll-padding-bottom: ${height}px; padding-bottom: ${height}px; }`);
  }

  function show(state, isReopened) {
    close();
    isPrompt = !isReopened;
    host = make("mp-asgi-consent");
    const root = host.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [look];
    root.append(render(state, isReopened));
    if (isPrompt) host.addEventListener("focusin", (event) => { opener = event.relatedTarget; });
    place();
    if (isReopened) find("h2").focus();
  }

  async function open(from) {
    opener = from;
    // Who wants to change their mind can do so even where the state cannot be told.
    const gpc = "@HONORS_GPC@" && navigator.globalPrivacyControl === true;
    show(await call({}).catch(() => ({ state: "unknown", gpc })), true);
  }

  async function prompt() {
    // The page may know, or ask itself; and a frame is not where a site asks.
    if (script.dataset.prompt === "off" || window !== top) return;
    const state = await call({}).catch(() => ({}));
    if (state.needs_prompt && !host) show(state, false);
    follow(state);
  }

  function begin() {
    look.replaceSync(STYLE);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, room];
    // At its capture, and along its path: also from inside of components, and whoever stops it.
    addEventListener("click", (event) => {
      const isButton = (at) => at instanceof Element && at.matches("[data-mp-consent]");
      const button = event.composedPath().find(isButton);
      if (!button) return;
      event.preventDefault();
      open(button);
    }, true);
    document.addEventListener("mp-asgi:consent", (event) => follow(event.detail));
    tabs.addEventListener("message", (event) => follow(event.data));
    // A page that comes back as it was left may have been answered elsewhere.
    addEventListener("pageshow", (event) => { if (event.persisted) prompt(); });
    prompt();
  }

  window.mpAsgi = { open: () => open(document.activeElement) };
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
