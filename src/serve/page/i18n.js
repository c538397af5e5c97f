// The page's own strings, and how times, sizes and probabilities are written. What reports say is in words.js.

import { remember } from "./dom.js";

const STRINGS = {
  en: {
    "colon": ": ", "app.skip": "Skip to the content", "app.nav": "Main", "app.queue": "Queue", "app.policies": "Policies", "app.deliveries": "Webhooks",
    "app.language": "Language", "app.dark": "Dark colours", "app.light": "Light colours", "app.help": "Keyboard help", "app.signOut": "Sign out", "app.tenant": "Tenant {tenant}", "app.close": "Close", "app.cancel": "Cancel",
    "app.loading": "Loading …", "app.retry": "Try again", "app.notFound": "There is no such page.", "app.toQueue": "To the queue",
    "offline": "The server cannot be reached. What you see may be out of date; trying again …", "online": "The server is back.",
    "error.title": "That did not work", "error.401": "Your session has ended. Sign in again.", "error.403": "This key may not do that.", "error.404": "There is no such job, or it was deleted.", "error.429": "Too many requests. Try again in {s} s.", "error.503": "The server is busy. Try again in a moment.",

    "signin.title": "Sign in", "signin.hint": "With an API key that has the scope “read”; to decide it needs “review”, for policies and webhooks “admin”.", "signin.key": "API key", "signin.go": "Sign in", "signin.wrong": "This key is not known, or it was revoked.",

    "queue.title": "Queue", "queue.filters": "Filters", "queue.search": "Search name, reference or SHA-256", "queue.any": "any", "queue.clear": "Clear the filters", "queue.state": "State", "queue.action": "Outcome", "queue.priority": "Priority", "queue.disposition": "Label duty", "queue.detector": "Finding of", "queue.decided": "Decision", "queue.decided.true": "decided", "queue.decided.false": "undecided",
    "queue.count": "{n} jobs shown", "queue.count.1": "1 job shown", "queue.more": "Show more", "queue.all": "That is all.", "queue.empty": "No jobs yet", "queue.emptyHint": "Send the first one:", "queue.none": "No job fits these filters.", "queue.updated": "Up to date at {time}",
    "queue.changed": "{n} jobs changed", "queue.open": "Open", "queue.caption": "Jobs, newest first",
    "queue.col.media": "Media", "queue.col.outcome": "Outcome", "queue.col.findings": "Findings", "queue.col.labels": "Labels", "queue.col.when": "Submitted", "queue.col.decision": "Decision", "queue.nofindings": "nothing suspicious", "queue.nodecision": "none",

    "state.fetching": "being fetched", "state.queued": "waiting", "state.running": "being judged", "state.done": "done", "state.failed": "failed", "state.cancelled": "cancelled",
    "priority.live": "live", "priority.normal": "normal", "priority.batch": "batch",
    "source.upload": "upload", "source.url": "fetched from {url}", "source.path": "file on the server",

    "decide.title": "Your decision", "decide.allow": "Allow", "decide.block": "Block", "decide.escalate": "Escalate", "decide.fake": "Is it fake?", "decide.fake.true": "yes", "decide.fake.false": "no", "decide.fake.null": "cannot say", "decide.note": "Note (kept for the audit)", "decide.confirm.allow": "Allow this?", "decide.confirm.block": "Block this?", "decide.confirm.escalate": "Escalate this?", "decide.replace": "A later decision replaces this one; every one is kept.", "decide.saved": "Saved: {verdict}", "decide.next": "Next job", "decide.noScope": "This key may read, not decide.", "decide.notYet": "A decision can be made once the job is finished.", "decide.history": "Decisions so far", "decide.none": "No decision yet.", "decide.line": "{verdict} by {by}, {time}", "decide.said.true": "held to be fake", "decide.said.false": "held to be real", "decide.change": "Change it",

    "job.back": "Queue", "job.previous": "Previous", "job.next": "Next", "job.position": "{n} of {all} shown", "job.facts": "The job", "job.outcome": "Outcome", "job.because": "Why", "job.policy": "Policy", "job.disposition": "Labelling duty", "job.evidence": "It rests on", "job.noEvidence": "No evidence either way.",
    "job.declared": "The uploader declared it to be made by AI.", "job.reused": "Answered from an earlier job with the same bytes.", "job.submitted": "Submitted", "job.started": "Begun", "job.finished": "Finished", "job.attempts": "Attempts", "job.source": "Source", "job.reference": "Reference", "job.bytes": "Size", "job.sha256": "SHA-256", "job.priority": "Priority", "job.id": "Job", "job.device": "Judged on", "job.engine": "Engine", "job.took": "Took",
    "job.reportHtml": "Report to print", "job.reportJson": "Report as JSON", "job.delete": "Delete this job", "job.delete.confirm": "Delete the job, its report and its media?", "job.deleted": "Deleted.",
    "job.progress": "Judged so far", "job.progressOf": "{at} of {all}", "job.queuedHint": "It waits for its turn.", "job.fetchingHint": "The media is being fetched.", "job.provisional": "Findings so far; they can still change.", "job.finishedNow": "The job is finished: {action}.", "job.failedTitle": "This could not be judged", "job.partialTitle": "Only a part was judged", "job.partialAt": "Last good moment: {time}",

    "player.title": "Media", "player.gone": "The media was deleted as the retention asks; these are small stills.", "player.nothing": "The media was deleted, and there are no stills.", "player.position": "Position", "player.boxes": "Mark faces and regions", "player.still": "Still at {time}", "player.notPlayable": "This browser cannot play the file; stills are shown instead.", "player.image": "The picture", "player.speed": "Speed",
    "lanes.title": "Findings over time", "lanes.titleStill": "Findings", "lanes.hintStill": "Each lane is one face or the file's labels. Higher is more likely fake.", "lanes.hint": "Each lane is one face, one voice or the file's labels. Higher is more likely fake. Click to go to that moment; Enter on a stretch goes to its strongest one.", "lanes.sound": "Sound", "lanes.spectrogram": "Spectrogram of sound stream {n}, low frequencies at the bottom", "lanes.more": "Show all {n} lanes", "lanes.fewer": "Show the most suspicious only", "lanes.in": "Zoom in", "lanes.out": "Zoom out", "lanes.fit": "Fit", "lanes.laneText": "{name}, {from} to {to}. {n} stretches. {worst}", "lanes.laneText.1": "{name}, {from} to {to}. One stretch. {worst}", "lanes.worst": "Most suspicious: {p} at {time}.", "lanes.noWorst": "Nothing here was judged.",
    "legend.title": "How to read it", "legend.fake": "fake", "legend.undetermined": "cannot tell", "legend.bonafide": "no sign of a fake", "legend.unjudged": "not judged", "legend.curve": "line: probability, smoothed", "legend.band": "band: where the probability lies, 9 times out of 10", "legend.peak": "triangle: the strongest moment",
    "segment.undetermined": "cannot tell", "segment.unjudged": "not judged", "segment.text": "{detector}, {from} to {to}: {verdict}{p}{why}", "segment.p": ", {p}, between {low} and {high}", "segment.title": "Stretch in detail", "segment.probability": "Probability of being fake", "segment.interval": "between {low} and {high} (9 times out of 10)", "segment.peak": "Strongest moment", "segment.peakAt": "{p} at {time}", "segment.when": "When", "segment.verdict": "Verdict", "segment.why": "Weak points", "segment.seek": "Go to {time}", "segment.table": "All stretches as a table", "segment.where": "Who or what", "segment.none": "There are no stretches.",
    "likelihood.face-swap": "{p} swapped", "likelihood.voice-clone": "{p} cloned", "likelihood.label-strip": "{p} removed", "fake.face-swap": "swapped", "fake.voice-clone": "cloned", "fake.label-strip": "label removed", "bonafide.face-swap": "no sign of a swap", "bonafide.voice-clone": "no sign of cloning", "bonafide.label-strip": "no sign of removal",
    "verdictLong.fake": "The whole interval lies above the limit.", "verdictLong.bonafide": "The whole interval lies below the limit.", "verdictLong.undetermined": "The interval spans the limit.",
    "heat.title": "Where the face was altered", "heat.strength": "Heat map, strength", "heat.mostly": "Altered mostly: {place}.", "heat.nowhere": "No place stands out.", "heat.noCrop": "There is no picture of this face; the map alone is shown.", "heat.alt": "Face crop at {time} with the heat map laid over. {place}", "heat.low": "0 %", "heat.high": "100 %", "heat.faint": "The map says where, not whether: the stretch's probability is {p}.",
    "labels.title": "Labels", "labels.none": "No label was found.", "labels.place": "Place", "labels.content": "What it says", "labels.deviations": "Departs from the rule", "labels.others": "{n} notes on how the file was packed", "labels.others.1": "1 note on how the file was packed",
    "evidence.title": "Signs that a label was removed", "evidence.none": "None. A label that was removed by writing the file anew leaves no sign.", "evidence.weight.strong": "strong sign", "evidence.weight.medium": "medium sign", "evidence.weight.weak": "weak sign", "evidence.weight": "{n} times likelier where a label was removed", "evidence.region": "The marked part of the picture at {time}", "evidence.regionText": "Region at x {x}, y {y}, {w} × {h} pixels", "evidence.when": "from {from} to {to}",
    "reasons.title": "What was not judged, and why", "reasons.none": "Everything was judged.", "reasons.file": "Whole file", "time.now": "just now",

    "policies.title": "Policies", "policies.current": "In force", "policies.version": "Version", "policies.loaded": "In force since", "policies.rules": "Its rules", "policies.thresholds": "From which probability on; stretches shorter than {s} s do not count", "policies.else": "Other findings", "policies.notJudged": "could not be judged, or not to the end", "policies.segmentsNotJudged": "stretches that could not be judged", "policies.fault": "The file has a fault; the version before it stays in force:", "policies.dry": "Try a policy", "policies.dryHint": "Paste a policy file (TOML). Nothing changes: stored reports are judged by it and compared.", "policies.toml": "Policy (TOML)", "policies.file.open": "Open a file …", "policies.run": "Compare", "policies.running": "Comparing …", "policies.result": "What would change", "policies.checked": "{n} reports compared", "policies.nothing": "Nothing would change.", "policies.from": "From", "policies.to": "To", "policies.count": "Jobs", "policies.jobs": "Jobs that would change", "policies.bounded": "Only the first {n} are listed.", "policies.wrong": "The policy cannot be read:",
    "deliveries.title": "Webhooks", "deliveries.state": "State", "deliveries.dead": "given up", "deliveries.pending": "pending", "deliveries.delivered": "delivered", "deliveries.none": "No deliveries in this state.", "deliveries.replay": "Send again", "deliveries.replayed": "It will be sent again.", "deliveries.event": "Event", "deliveries.job": "Job", "deliveries.attempts": "Tries", "deliveries.error": "Last fault", "deliveries.next": "Next try", "deliveries.made": "Made", "deliveries.ofJob": "Webhook calls about this job", "deliveries.bounded": "Only the newest {n} are shown.",
    "event.job.done": "job done", "event.job.failed": "job failed", "event.job.decided": "decision made",
    "admin.noScope": "This needs a key with the scope “admin”.",

    "help.title": "Keyboard", "help.queue": "Queue", "help.job": "Job", "help.everywhere": "Everywhere", "help.next": "next job", "help.previous": "previous job", "help.open": "open the job", "help.allow": "allow …", "help.block": "block …", "help.escalate": "escalate …", "help.search": "search", "help.help": "this help", "help.play": "play, pause", "help.seek": "1 s back, forward (with Shift 5 s)", "help.peak": "strongest moment before, after", "help.back": "back to the queue", "help.escape": "close, cancel", "help.theme": "dark or light", "help.single": "Single characters are commands", "help.decision": "Decisions are confirmed in a dialog and can be replaced later.",
  },
  zh: {
    "colon": "：", "app.skip": "跳到正文", "app.nav": "主导航", "app.queue": "队列", "app.policies": "策略", "app.deliveries": "回调",
    "app.language": "语言", "app.dark": "深色", "app.light": "浅色", "app.help": "键盘帮助", "app.signOut": "退出登录", "app.tenant": "租户 {tenant}", "app.close": "关闭", "app.cancel": "取消",
    "app.loading": "正在加载……", "app.retry": "重试", "app.notFound": "没有这个页面。", "app.toQueue": "返回队列",
    "offline": "无法连接服务器。所见内容可能已过时，正在重试……", "online": "服务器已恢复连接。",
    "error.title": "操作未成功", "error.401": "会话已结束，请重新登录。", "error.403": "此密钥无权执行该操作。", "error.404": "没有这个任务，或已被删除。", "error.429": "请求过多，请在 {s} 秒后重试。", "error.503": "服务器繁忙，请稍后重试。",

    "signin.title": "登录", "signin.hint": "请使用具有 read 权限的 API 密钥；作出决定需要 review 权限，策略和回调需要 admin 权限。", "signin.key": "API 密钥", "signin.go": "登录", "signin.wrong": "密钥无效或已被吊销。",

    "queue.title": "队列", "queue.filters": "筛选", "queue.search": "搜索名称、编号或 SHA-256", "queue.any": "不限", "queue.clear": "清除筛选", "queue.state": "状态", "queue.action": "处置结果", "queue.priority": "优先级", "queue.disposition": "标识义务", "queue.detector": "发现类型", "queue.decided": "决定", "queue.decided.true": "已决定", "queue.decided.false": "未决定",
    "queue.count": "显示 {n} 个任务", "queue.count.1": "显示 1 个任务", "queue.more": "显示更多", "queue.all": "已全部显示。", "queue.empty": "还没有任务", "queue.emptyHint": "提交第一个任务：", "queue.none": "没有符合筛选条件的任务。", "queue.updated": "更新于 {time}",
    "queue.changed": "{n} 个任务有变化", "queue.open": "打开", "queue.caption": "任务，最新的在前",
    "queue.col.media": "媒体", "queue.col.outcome": "处置结果", "queue.col.findings": "发现", "queue.col.labels": "标识", "queue.col.when": "提交时间", "queue.col.decision": "决定", "queue.nofindings": "无可疑之处", "queue.nodecision": "无",

    "state.fetching": "正在获取", "state.queued": "等待中", "state.running": "检测中", "state.done": "已完成", "state.failed": "失败", "state.cancelled": "已取消",
    "priority.live": "实时", "priority.normal": "普通", "priority.batch": "批量",
    "source.upload": "上传", "source.url": "从 {url} 获取", "source.path": "服务器上的文件",

    "decide.title": "您的决定", "decide.allow": "放行", "decide.block": "拦截", "decide.escalate": "上报", "decide.fake": "是否为伪造？", "decide.fake.true": "是", "decide.fake.false": "否", "decide.fake.null": "无法判断", "decide.note": "备注（留存备查）", "decide.confirm.allow": "确定放行？", "decide.confirm.block": "确定拦截？", "decide.confirm.escalate": "确定上报？", "decide.replace": "之后的决定会取代这一决定；每次决定都会留存。", "decide.saved": "已保存：{verdict}", "decide.next": "下一个任务", "decide.noScope": "此密钥只能查看，不能作决定。", "decide.notYet": "任务完成后才能作决定。", "decide.history": "已有的决定", "decide.none": "尚无决定。", "decide.line": "{by} {verdict}，{time}", "decide.said.true": "认为是伪造", "decide.said.false": "认为是真实", "decide.change": "更改",

    "job.back": "队列", "job.previous": "上一个", "job.next": "下一个", "job.position": "所列 {all} 个中的第 {n} 个", "job.facts": "任务信息", "job.outcome": "处置结果", "job.because": "理由", "job.policy": "策略", "job.disposition": "标识义务", "job.evidence": "依据", "job.noEvidence": "没有任何依据。",
    "job.declared": "上传者声明内容由 AI 生成。", "job.reused": "沿用字节相同的先前任务的报告。", "job.submitted": "提交", "job.started": "开始", "job.finished": "完成", "job.attempts": "尝试次数", "job.source": "来源", "job.reference": "编号", "job.bytes": "大小", "job.sha256": "SHA-256", "job.priority": "优先级", "job.id": "任务", "job.device": "检测设备", "job.engine": "引擎", "job.took": "用时",
    "job.reportHtml": "可打印的报告", "job.reportJson": "JSON 报告", "job.delete": "删除此任务", "job.delete.confirm": "删除此任务及其报告和媒体？", "job.deleted": "已删除。",
    "job.progress": "检测进度", "job.progressOf": "{all} 中的 {at}", "job.queuedHint": "正在排队。", "job.fetchingHint": "正在获取媒体。", "job.provisional": "目前的发现，之后仍可能变化。", "job.finishedNow": "任务已完成：{action}。", "job.failedTitle": "无法检测", "job.partialTitle": "只检测了一部分", "job.partialAt": "最后的正常时刻：{time}",

    "player.title": "媒体", "player.gone": "媒体已按保留规定删除，以下为小幅静帧。", "player.nothing": "媒体已删除，也没有静帧。", "player.position": "位置", "player.boxes": "标出人脸和区域", "player.still": "{time} 的静帧", "player.notPlayable": "浏览器无法播放此文件，改为显示静帧。", "player.image": "图片", "player.speed": "速度",
    "lanes.title": "随时间的发现", "lanes.titleStill": "发现", "lanes.hintStill": "每条轨道是一张脸或文件的标识。越高越可能是伪造。", "lanes.hint": "每条轨道是一张脸、一个声音或文件的标识。越高越可能是伪造。点击可跳到该时刻；在某一段上按回车则跳到其最可疑的时刻。", "lanes.sound": "声音", "lanes.spectrogram": "音频流 {n} 的频谱图，低频在下", "lanes.more": "显示全部 {n} 条轨道", "lanes.fewer": "只显示最可疑的", "lanes.in": "放大", "lanes.out": "缩小", "lanes.fit": "适应宽度", "lanes.laneText": "{name}，{from} 至 {to}，共 {n} 段。{worst}", "lanes.laneText.1": "{name}，{from} 至 {to}，共 1 段。{worst}", "lanes.worst": "最可疑：{time} 处 {p}。", "lanes.noWorst": "此处没有可检测的内容。",
    "legend.title": "图例", "legend.fake": "伪造", "legend.undetermined": "无法判断", "legend.bonafide": "未见伪造", "legend.unjudged": "未检测", "legend.curve": "曲线：平滑后的概率", "legend.band": "色带：概率所在范围（90 %）", "legend.peak": "三角：最可疑的时刻",
    "segment.undetermined": "无法判断", "segment.unjudged": "未检测", "segment.text": "{detector}，{from} 至 {to}：{verdict}{p}{why}", "segment.p": "，{p}，介于 {low} 与 {high} 之间", "segment.title": "此段详情", "segment.probability": "伪造概率", "segment.interval": "介于 {low} 与 {high} 之间（90 %）", "segment.peak": "最可疑的时刻", "segment.peakAt": "{time} 处 {p}", "segment.when": "时间", "segment.verdict": "判定", "segment.why": "薄弱之处", "segment.seek": "跳到 {time}", "segment.table": "以表格列出所有段", "segment.where": "对象", "segment.none": "没有任何段。",
    "likelihood.face-swap": "换脸 {p}", "likelihood.voice-clone": "克隆 {p}", "likelihood.label-strip": "被去除 {p}", "fake.face-swap": "换脸", "fake.voice-clone": "克隆语音", "fake.label-strip": "标识被去除", "bonafide.face-swap": "未见换脸", "bonafide.voice-clone": "未见克隆", "bonafide.label-strip": "未见去除",
    "verdictLong.fake": "整个区间高于界限。", "verdictLong.bonafide": "整个区间低于界限。", "verdictLong.undetermined": "区间跨越界限。",
    "heat.title": "人脸何处被改动", "heat.strength": "热力图强度", "heat.mostly": "改动主要在：{place}。", "heat.nowhere": "没有突出的部位。", "heat.noCrop": "没有这张脸的图像，只显示热力图。", "heat.alt": "{time} 处的人脸，叠加热力图。{place}", "heat.low": "0 %", "heat.high": "100 %", "heat.faint": "热力图表示位置，不表示真伪：此段的概率是 {p}。",
    "labels.title": "标识", "labels.none": "没有发现标识。", "labels.place": "位置", "labels.content": "内容", "labels.deviations": "不符合规定之处", "labels.others": "{n} 条关于文件封装的记录", "labels.others.1": "1 条关于文件封装的记录",
    "evidence.title": "标识被去除的迹象", "evidence.none": "无。若去除标识时重写了文件，则不会留下迹象。", "evidence.weight.strong": "强迹象", "evidence.weight.medium": "中等迹象", "evidence.weight.weak": "弱迹象", "evidence.weight": "标识被去除的文件中出现的可能性高 {n} 倍", "evidence.region": "{time} 处画面中标出的部分", "evidence.regionText": "区域：x {x}，y {y}，{w} × {h} 像素", "evidence.when": "{from} 至 {to}",
    "reasons.title": "未检测的内容及原因", "reasons.none": "全部内容都已检测。", "reasons.file": "整个文件", "time.now": "刚刚",

    "policies.title": "策略", "policies.current": "现行策略", "policies.version": "版本", "policies.loaded": "生效时间", "policies.rules": "规则", "policies.thresholds": "达到此概率即适用；短于 {s} 秒的段不计", "policies.else": "其他发现", "policies.notJudged": "无法检测或未检测完", "policies.segmentsNotJudged": "有未检测的段", "policies.fault": "文件有误，仍沿用之前的版本：", "policies.dry": "试运行策略", "policies.dryHint": "粘贴策略文件（TOML）。不会有任何改动，只是用它重新评估已存的报告并比较。", "policies.toml": "策略（TOML）", "policies.file.open": "打开文件……", "policies.run": "比较", "policies.running": "正在比较……", "policies.result": "会有哪些变化", "policies.checked": "已比较 {n} 份报告", "policies.nothing": "不会有任何变化。", "policies.from": "原来", "policies.to": "改为", "policies.count": "任务数", "policies.jobs": "会变化的任务", "policies.bounded": "只列出前 {n} 个。", "policies.wrong": "无法读取此策略：",
    "deliveries.title": "回调", "deliveries.state": "状态", "deliveries.dead": "已放弃", "deliveries.pending": "待发送", "deliveries.delivered": "已送达", "deliveries.none": "没有处于此状态的回调。", "deliveries.replay": "重新发送", "deliveries.replayed": "将重新发送。", "deliveries.event": "事件", "deliveries.job": "任务", "deliveries.attempts": "尝试次数", "deliveries.error": "最近的错误", "deliveries.next": "下次尝试", "deliveries.made": "产生时间", "deliveries.ofJob": "关于此任务的回调", "deliveries.bounded": "只显示最新的 {n} 次。",
    "event.job.done": "任务完成", "event.job.failed": "任务失败", "event.job.decided": "已作决定",
    "admin.noScope": "需要具有 admin 权限的密钥。",

    "help.title": "键盘", "help.queue": "队列", "help.job": "任务", "help.everywhere": "任何位置", "help.next": "下一个任务", "help.previous": "上一个任务", "help.open": "打开任务", "help.allow": "放行……", "help.block": "拦截……", "help.escalate": "上报……", "help.search": "搜索", "help.help": "显示此帮助", "help.play": "播放、暂停", "help.seek": "后退、前进 1 秒（按住 Shift 为 5 秒）", "help.peak": "上一个、下一个最可疑的时刻", "help.back": "返回队列", "help.escape": "关闭、取消", "help.theme": "深色或浅色", "help.single": "启用单键快捷键", "help.decision": "作决定时会弹出确认框，之后可以更改。",
  },
};

let lang = /^zh/i.test(document.documentElement.lang) ? "zh" : "en";

export const language = () => lang;
/** The value of `lang` attributes and of the formats below. */
export const locale = () => (lang === "zh" ? "zh-CN" : "en");
/** For dates: the reader's own region where the browser names one of this language. */
const region = () => navigator.languages?.find((one) => one.toLowerCase().startsWith(lang)) ?? locale();

export function setLanguage(next) {
  lang = next;
  document.documentElement.lang = locale();
  remember("lang", locale());
}

/** The string of that key, with `{name}` filled in; a key with a count has a form for 1. */
export function t(key, values = {}) {
  const strings = STRINGS[lang];
  const text = (values.n === 1 ? strings[`${key}.1`] : undefined) ?? strings[key] ?? STRINGS.en[key];
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** All strings that one language has and the other lacks; for the tests. */
export function missing() {
  const keys = (a, b) => Object.keys(STRINGS[a]).filter((key) => STRINGS[b][key] === undefined);
  return [...keys("en", "zh"), ...keys("zh", "en")];
}

/** A moment or length of media: `8.0 s`, `1:02.5`, `1:00:05`. */
export function moment(ms) {
  if (ms === null || ms === undefined) return "–";
  const tenths = Math.round(Math.max(0, ms) / 100);
  const [sec, min, hour] = [(tenths / 10) % 60, Math.floor(tenths / 600) % 60, Math.floor(tenths / 36000)];
  const two = (n) => String(n).padStart(2, "0");
  if (hour) return `${hour}:${two(min)}:${two(Math.floor(sec))}`;
  return `${min}:${sec < 10 ? "0" : ""}${sec.toFixed(1)}`;
}

/** A probability in percent, never rounded to a certainty that it does not have. */
export function percent(p) {
  if (p === null || p === undefined) return "–";
  const value = p * 100;
  if (value > 99.5 && value < 100) return value > 99.9 ? "> 99.9 %" : `${(Math.floor(value * 10) / 10).toFixed(1)} %`;
  if (value < 0.5 && value > 0) return "< 0.5 %";
  return `${Math.round(value)} %`;
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export function when(iso) {
  return iso ? new Intl.DateTimeFormat(region(), { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso)) : "–";
}

/** How long ago, roughly; beyond a day the date. */
export function ago(iso) {
  const seconds = Math.round((Date.now() - new Date(iso).getTime()) / 1000);
  const relative = new Intl.RelativeTimeFormat(region(), { numeric: "auto", style: "short" });
  if (seconds < 10) return t("time.now");
  if (seconds < 60) return relative.format(-seconds, "second");
  if (seconds < 3600) return relative.format(-Math.round(seconds / 60), "minute");
  if (seconds < 86400) return relative.format(-Math.round(seconds / 3600), "hour");
  return new Intl.DateTimeFormat(region(), { dateStyle: "medium" }).format(new Date(iso));
}
