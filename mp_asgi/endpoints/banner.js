// Ask for consent, and let it be changed again. See the page on consent in the docs.
(() => {
  "use strict";
  if (window.mpAsgi) return;
  const notices = "@NOTICES@";
  const script = document.currentScript;
  const endpoint = new URL("consent", script.src);
  const language = chooseLanguage();
  const texts = notices[language];
  const NOT_CHOSEN = ["sec-gpc", "dnt", "policy-denied", "opt-out-default", "cookieless", "disabled"];
  const DENIED_BY_SCRIPT = "mp_choice=denied; Max-Age=34128000"; // 395 days, as the server's own

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
    .close:hover { background: var(--tint); }
    :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
  `;

  let host = null;
  let opener = null;

  function chooseLanguage() {
    const offered = Object.keys(notices);
    for (const wanted of [script.dataset.lang, document.documentElement.lang]) {
      const name = (wanted || "").toLowerCase();
      const short = (tag) => tag.toLowerCase().split("-")[0];
      const found = offered.find((tag) => tag.toLowerCase() === name)
        || offered.find((tag) => short(tag) === short(name));
      if (found) return found;
    }
    return offered[0];
  }

  async function call(options) {
    const response = await fetch(endpoint, { cache: "no-store", ...options });
    const answer = await response.json();
    if (!response.ok && !answer.state) throw new Error(answer.error);
    return answer;
  }

  function post(analytics, state) {
    const decision = {
      analytics,
      language,
      notice: state.gpc ? texts.digest_gpc : texts.digest,
      source: "banner",
    };
    if (state.gpc && analytics === "granted") decision.override_gpc = true;
    return call({
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(decision),
    });
  }

  async function choose(analytics, state) {
    try {
      const answer = await post(analytics, state);
      if (answer.needs_override) return show(answer, true); // the signal was turned on meanwhile
      if (answer.state !== analytics) throw new Error(answer.reason);
      if (analytics === "granted") write("mp_choice=; Max-Age=0");
      conclude(answer);
    } catch {
      if (analytics === "denied") {
        // A refusal needs no server: this cookie counts as one from the next request on.
        write(DENIED_BY_SCRIPT);
        conclude({ ...state, state: "denied", reason: "script-denied", needs_prompt: false });
      } else if (host) {
        host.shadowRoot.querySelector(".failed").textContent = texts.failed;
      }
    }
  }

  function write(cookie) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${cookie}; Path=/; SameSite=Lax${secure}`;
  }

  function conclude(state) {
    close();
    document.dispatchEvent(new CustomEvent("mp-asgi:consent", { detail: state }));
  }

  function close() {
    if (!host) return;
    const hadFocus = document.activeElement === host;
    host.remove();
    host = null;
    if (hadFocus && opener) opener.focus();
  }

  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function render(state, isReopened) {
    const section = make("section", { lang: language, dir: "auto" });
    section.setAttribute("role", "region");
    section.setAttribute("aria-labelledby", "title");
    section.append(make("h2", { id: "title", tabIndex: -1, textContent: texts.title }));
    if (isReopened && texts[state.state] && !NOT_CHOSEN.includes(state.reason)) {
      section.append(make("p", { className: "status", textContent: texts[state.state] }));
    }
    section.append(make("p", { textContent: texts.text }));
    if (state.gpc) section.append(make("p", { className: "gpc", textContent: texts.gpc }));
    if (texts.policy_url) {
      const link = make("a", { href: texts.policy_url, textContent: texts.policy_label });
      section.append(make("p", {}, link));
    }
    const button = (textContent, analytics) => make("button", {
      type: "button", textContent, onclick: () => choose(analytics, state),
    });
    const accept = state.gpc ? texts.accept_gpc : texts.accept;
    const failed = make("p", { className: "failed" });
    failed.setAttribute("role", "alert");
    const cross = make("button", { type: "button", className: "close", textContent: "×" });
    cross.setAttribute("aria-label", texts.close);
    cross.onclick = close;
    section.append(failed, make("div", {}, button(texts.refuse, "denied"),
      button(accept, "granted")), cross);
    // Escape leaves everything as it is, as the cross does.
    section.onkeydown = (event) => { if (event.key === "Escape") close(); };
    return section;
  }

  function show(state, isReopened) {
    close();
    host = document.createElement("mp-asgi-consent");
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet(); // no inline style: a strict Content-Security-Policy holds
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    root.append(render(state, isReopened));
    document.body.prepend(host); // first in the order of focus
    if (isReopened) root.querySelector("h2").focus();
  }

  async function open() {
    opener = document.activeElement;
    // Who wants to change their mind can do so even where the state cannot be told.
    const unknown = { state: "unknown", gpc: navigator.globalPrivacyControl === true };
    show(await call({}).catch(() => unknown), true);
  }

  async function begin() {
    document.addEventListener("click", (event) => {
      if (!event.target.closest("[data-mp-consent]")) return;
      event.preventDefault();
      open();
    });
    if (script.dataset.prompt === "off") return; // the page knows, or asks itself
    const state = await call({}).catch(() => ({}));
    if (state.needs_prompt && !host) show(state, false);
  }

  window.mpAsgi = { open };
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
