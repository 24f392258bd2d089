/** Imports go down only (docs/architecture.md): these rules are the proof that the privileged side parses no guest byte. */
const rule = (name, from, to, comment) => ({ name, severity: "error", comment, from: { path: from }, to: { path: to } });

module.exports = {
  forbidden: [
    { name: "no-circular", severity: "error", from: {}, to: { circular: true } },
    rule("privileged-side", "^src/(cli|lifecycle|shim)/", "^(src/(sandbox|vmm|hypervisor|agent-client)|agent)/", "the command line and the shim never parse guest bytes"),
    rule("control-is-neutral", "^src/control/", "^(src/(cli|lifecycle|shim|sandbox|vmm|hypervisor|agent-client)|agent)/", "both sides use it"),
    rule("sandbox", "^src/sandbox/", "^(src/(cli|lifecycle|shim)|agent)/", "the sandbox process is below the command line"),
    rule("hypervisor", "^src/hypervisor/", "^(src/(cli|lifecycle|shim|sandbox|agent-client|control)|agent)/", "drivers know machines, not pods"),
    rule("agent", "^agent/", "^src/(?!oci/|protocols/|base/|telemetry/|native\\.ts)", "the agent is another machine's program"),
    rule("no-agent", "^src/", "^agent/", "the agent is another machine's program"),
    rule("oci", "^src/oci/", "^src/(?!oci/|base/|telemetry/)", "schemas and files of the specification"),
    rule("base", "^src/base/", "^(src/(?!base/)|agent/)", "base imports nothing"),
    rule("telemetry", "^src/telemetry/", "^(src/(?!base/|telemetry/)|agent/)", "everything may use it"),
  ],
  options: { tsConfig: { fileName: "tsconfig.json" }, tsPreCompilationDeps: true, doNotFollow: { path: "node_modules" } },
};
