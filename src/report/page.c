/* Head and foot of the page: styles and script, which are all there is of both.
 *
 * The page asks nobody for anything: a policy in its head forbids every load, so that not even a hostile completion that got past the
 * escaping could call home. Without script it is complete (the last values stand in the legends); the script adds read-outs at the step
 * under the pointer, in all drawings at once, and switches for lines.
 *
 * Colours: eight hues that keep 3:1 against their ground in both schemes and differ in lightness too; text keeps 4.5:1. */
#include "report_internal.h"
#include <string.h>

static const char styles[] =
    ":root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#566173;--line:#d9dee6;--grid:#e7eaef;--bad:#b42318;--good:#18794e;--mid:#8a5a00;--wash:#eef2f7;"
    "--c0:#1f5fbf;--c1:#c2410c;--c2:#0f766e;--c3:#8b2fc9;--c4:#8a6d00;--c5:#be185d;--c6:#4d7c0f;--c7:#475569}"
    "@media (prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2029;--ink:#e6eaf0;--soft:#a3aebd;--line:#333d4a;--grid:#29313c;--bad:#ff8f80;--good:#6fdca0;--mid:#f0c36b;--wash:#222a35;"
    "--c0:#7ab0ff;--c1:#ffab73;--c2:#5fd9c6;--c3:#cf9bff;--c4:#e8cc5a;--c5:#ff8fbc;--c6:#a8d65c;--c7:#b6c2d1}}"
    "*{box-sizing:border-box}html{scroll-behavior:smooth}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif}"
    "main,header,footer{max-width:1440px;margin:0 auto;padding:0 24px}header{padding-top:28px}footer{padding-bottom:40px;color:var(--soft);font-size:13px}"
    "h1{font-size:26px;line-height:1.25;margin:0;overflow-wrap:anywhere}h2{font-size:19px;margin:36px 0 12px}h3{font-size:15px;margin:0;display:inline;overflow-wrap:anywhere}h4{font-size:12px;margin:10px 0 3px;color:var(--soft);font-weight:600}"
    "small{color:var(--soft);font-weight:400;font-size:12.5px}a{color:var(--c0)}.sub{color:var(--soft);margin:4px 0 0}.sub b{color:var(--ink);font-weight:600}"
    "nav{display:flex;flex-wrap:wrap;gap:4px 18px;align-items:center;margin:18px 0 0;padding:8px 0;border-top:1px solid var(--line);border-bottom:1px solid var(--line);font-size:14px}nav a{text-decoration:none}"
    "nav a:hover{text-decoration:underline}nav label{margin-left:auto;color:var(--soft)}"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin:20px 0 0}.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}"
    ".tile dt{color:var(--soft);font-size:13px}.tile dd{margin:0;font-size:21px;font-weight:600;font-variant-numeric:tabular-nums}.tile small{display:block;line-height:1.3;min-height:1.3em}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:14px}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px 8px;display:flex;flex-direction:column;min-width:0}figcaption{flex:1}"
    ".at{float:right;color:var(--soft);font-size:12.5px;font-variant-numeric:tabular-nums}.help,.note{color:var(--soft);font-size:12.5px;line-height:1.4;margin:1px 0 0}.note{margin:4px 0}.bad{color:var(--bad)}"
    ".legend{display:flex;flex-wrap:wrap;gap:0 14px;margin:4px 0 2px;font-size:12.5px}.legend button{all:unset;cursor:pointer;color:var(--soft)}.legend button:focus-visible,svg:focus-visible,summary:focus-visible,"
    ".wide:focus-visible{outline:2px solid var(--c0);outline-offset:2px}.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}.legend [aria-pressed=false]{opacity:.45;text-decoration:line-through}"
    ".legend i{display:inline-block;width:14px;height:0;border-top:3px solid var(--c);vertical-align:middle;margin-right:5px}.legend .k1 i{border-top-style:dashed}.legend .k2 i{border-top-style:dotted}"
    ".legend [data-s] i,.shade i{height:10px!important;border:0!important;background:var(--c)}.shade{color:var(--soft)}.shade i{opacity:.22}"
    ".k0,.k8{--c:var(--c0)}.k1,.k9{--c:var(--c1)}.k2,.k10{--c:var(--c2)}.k3,.k11{--c:var(--c3)}.k4{--c:var(--c4)}.k5{--c:var(--c5)}.k6{--c:var(--c6)}.k7{--c:var(--c7)}"
    "svg{display:block;width:100%;max-width:600px;height:auto;overflow:visible;touch-action:pan-y}svg path{fill:none;vector-effect:non-scaling-stroke;stroke-linecap:round;stroke-linejoin:round}"
    "svg text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}.y text{text-anchor:end}.x text{text-anchor:middle}svg .name{font-size:10.5px}"
    "svg .grid{stroke:var(--grid);stroke-linecap:butt}svg .axis{stroke:var(--soft);opacity:.7;stroke-linecap:butt}svg .level{stroke:var(--soft);stroke-dasharray:3 4}svg .line{stroke:var(--c);stroke-width:1.8}"
    "svg .dots{stroke:var(--c);stroke-width:6.5}svg .k1 .line{stroke-dasharray:6 4}svg .k2 .line{stroke-dasharray:1.5 4}svg .band{fill:var(--c);opacity:.16}svg .bars{fill:var(--c)}svg .gaps{stroke:var(--bad);stroke-width:5}"
    "svg .cursor{stroke:var(--ink);opacity:.55;display:none}svg .smooth{stroke-width:2.2}.smoothing svg .raw{opacity:.38;stroke-width:1.2}body:not(.smoothing) svg .smooth{display:none}svg .off{display:none}"
    "details>summary{cursor:pointer;color:var(--soft);font-size:13px;margin:4px 0}summary h2{display:inline;color:var(--ink)}.more>summary{margin:36px 0 12px}"
    ".box{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--mid);border-radius:6px;padding:8px 14px;margin:16px 0 0;font-size:14px}.box p{margin:2px 0}"
    ".settings{border-collapse:collapse;font-size:13.5px;background:var(--card);border:1px solid var(--line);border-radius:8px;width:100%}.settings td{padding:3px 14px;border-top:1px solid var(--grid);overflow-wrap:anywhere;vertical-align:top}"
    ".settings tr:first-child td{border-top:0}.settings td:first-child{color:var(--soft);white-space:nowrap;width:1%}code,pre,.settings td+td{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12.5px}"
    "pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px;overflow:auto;max-height:480px}.two{margin:8px 0;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:0 14px;align-items:start}.two .settings{margin-bottom:0}"
    ".wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--card);margin-top:10px}.samples{border-collapse:collapse;width:100%;table-layout:fixed}.samples thead td{width:84px}"
    ".samples th,.samples td{padding:10px 12px;vertical-align:top;text-align:left}.samples thead th{font-size:14.5px}.samples tbody td,.samples tbody th,.samples thead th{border-left:1px solid var(--grid)}.samples tbody th{border-left:0;font-size:13.5px}"
    ".samples tbody tr{border-top:1px solid var(--line)}.samples .r0{--r:var(--good)}.samples .r1{--r:var(--mid)}.samples .r2{--r:var(--bad)}.samples th.r0,.samples th.r1,.samples th.r2{color:var(--r)}"
    ".strip{max-width:260px;margin-top:6px}svg.strip .all{stroke:var(--soft);opacity:.55}svg.strip .r0,svg.strip .r1,svg.strip .r2{stroke:var(--r);stroke-width:2.5}"
    ".facts{display:flex;flex-wrap:wrap;gap:0 12px;align-items:baseline;font-size:12.5px;color:var(--soft);font-variant-numeric:tabular-nums}.score{font-size:18px;color:var(--r)}.cut{color:var(--mid)}"
    ".parts{display:flex;flex-wrap:wrap;gap:0 12px;margin:1px 0 0;font-size:12.5px}.parts div{display:flex;gap:5px}.parts dt{color:var(--soft);overflow-wrap:anywhere}.parts dd{margin:0;font-variant-numeric:tabular-nums}"
    ".text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;background:var(--wash);border-radius:6px;padding:7px 10px;font-size:13.5px;line-height:1.45}.none{color:var(--soft);font-style:italic}"
    "@media print{nav,.cursor{display:none}body{background:#fff}figure,.tile{break-inside:avoid}}";

/* at(figure, step): the cursor and the values nearest to a step; NaN: back to the last ones. */
static const char script[] =
    "(function(){'use strict';document.body.classList.add('smoothing');"
    "var figures=[].slice.call(document.querySelectorAll('figure')).filter(function(f){return f.querySelector('svg')}).map(function(f){var s=f.querySelector('svg'),o={f:f,s:s,c:s.querySelector('.cursor'),at:f.querySelector('.at'),"
    "x0:+s.dataset.x0,x1:+s.dataset.x1,l:+s.dataset.l,r:+s.dataset.r,b:[].slice.call(f.querySelectorAll('.legend button'))};"
    "o.b.forEach(function(b){var v=b.querySelector('b');b._was=v.textContent;b._out=v;b._path=s.querySelector('g.k'+b.dataset.k+' [data-p]');"
    "b.addEventListener('click',function(){var on=b.getAttribute('aria-pressed')!=='true';b.setAttribute('aria-pressed',on);s.querySelectorAll('.k'+b.dataset.k).forEach(function(g){g.classList.toggle('off',!on)})})});return o});"
    "function points(b){if(!b._p&&b._path){var w=b._path.dataset.p.split(' '),p=[];for(var i=0;i+1<w.length;i+=2)p.push([+w[i],w[i+1]==='-'?NaN:+w[i+1]]);b._p=p}return b._p||[]}"
    "function nearest(p,x){var a=0,z=p.length-1;while(z-a>1){var m=(a+z)>>1;if(p[m][0]<=x)a=m;else z=m}return Math.abs(p[z][0]-x)<Math.abs(p[a][0]-x)?z:a}"
    "function number(v){var a=Math.abs(v);if(isNaN(v))return'NaN';if(a&&(a<1e-3||a>=1e7))return v.toExponential(2).replace('e+','e').replace(/\\.?0+e/,'e');if(a>=1000)return v.toFixed(0);"
    "return String(+v.toFixed(a>=100?1:a>=10?2:a>=1?3:a>=.1?4:a>=.01?5:6))}"
    "function at(x){figures.forEach(function(o){var none=isNaN(x);o.c.style.display=none?'none':'block';if(none){o.at.textContent='';o.b.forEach(function(b){b._out.textContent=b._was});return}"
    "var px=o.l+(x-o.x0)/(o.x1-o.x0)*(o.r-o.l);o.c.setAttribute('transform','translate('+px.toFixed(1)+' 0)');o.at.textContent=o.s.dataset.u+' '+Math.round(x);"
    "o.b.forEach(function(b){var p=points(b);if(!p.length)return;var q=p[nearest(p,x)],t=number(q[1]);if(b.dataset.of&&!isNaN(q[1]))t+=' ('+Math.round(q[1]*b.dataset.of)+' of '+b.dataset.of+')';"
    "if(Math.abs(q[0]-x)>=.5)t+=' at '+Math.round(q[0]);b._out.textContent=t})})}"
    "function grid(o){return o.b.map(points).reduce(function(a,p){return p.length>a.length?p:a},[])}"
    "var queued=null,now=NaN;function later(x){if(queued===null)requestAnimationFrame(function(){now=queued;queued=null;at(now)});queued=x}"
    "figures.forEach(function(o){function move(e){var r=o.s.getBoundingClientRect(),px=(e.clientX-r.left)/r.width*o.s.viewBox.baseVal.width,x=o.x0+(px-o.l)/(o.r-o.l)*(o.x1-o.x0),p=grid(o);if(p.length)later(p[nearest(p,x)][0])}"
    "o.s.addEventListener('pointermove',move);o.s.addEventListener('pointerdown',move);o.s.addEventListener('pointerleave',function(){later(NaN)});o.s.addEventListener('blur',function(){later(NaN)});"
    "o.s.addEventListener('keydown',function(e){var d=e.key==='ArrowRight'?1:e.key==='ArrowLeft'?-1:0,p=grid(o);if(e.key==='Escape')later(NaN);if(!d||!p.length)return;e.preventDefault();"
    "var i=isNaN(now)?(d>0?-1:p.length):nearest(p,now);later(p[Math.max(0,Math.min(p.length-1,i+d))][0])})});"
    "var s=document.getElementById('smoothing');if(s){s.parentNode.hidden=!document.querySelector('.smooth');s.addEventListener('change',function(){document.body.classList.toggle('smoothing',s.checked)})}})();";

void report_begin(report_page *p, const char *title) {
    report_put(p, "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
                  "<meta http-equiv=Content-Security-Policy content=\"default-src 'none';style-src 'unsafe-inline';script-src 'unsafe-inline'\">\n<meta name=generator content=\"plumb %s\">\n<title>",
               PLUMB_VERSION);
    report_put_escaped(p, title, strlen(title));
    report_put(p, "</title>\n<style>%s</style>\n</head>\n<body class=smoothing>\n", styles);
}

void report_end(report_page *p) { report_put(p, "<script>%s</script>\n</body>\n</html>\n", script); }
