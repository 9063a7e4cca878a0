# What jobs ask of a cluster, and what they need there. No result depends on it: nothing here makes a job run again.
import platform
import signal
import subprocess
from contextlib import suppress

from gyri import preflight
from gyri.preflight.slurm import plain_states
from gyri.site import bind_variable, bound_folders, check_bind, load_site


def read_site():
    try:
        site = load_site()
        if CONTAINERS:
            check_bind(site, platform.node())
        return site
    except GyriError as error:
        raise WorkflowError(str(error)) from None


SITE = read_site()
if SITE.scratch_folder():
    with suppress(OSError):
        # containers can be shown only what is there; a machine that submits jobs need not have it
        Path(SITE.scratch_folder()).mkdir(parents=True, exist_ok=True)
BOUND = bound_folders(SITE, CONFIG, Path.cwd())

# containers see the working folder and /tmp; this variable adds the rest, for jobs of this process. What the user had in it is kept aside: a job
# inherits the variable of the machine that submitted it, whose folders need not be on its node
os.environ.update(GYRI_BIND_BEFORE=os.getenv("GYRI_BIND_BEFORE", os.getenv("APPTAINER_BIND", "")))
os.environ.update(APPTAINER_BIND=bind_variable(BOUND, os.getenv("GYRI_BIND_BEFORE", "")))

# a training saves its state and stops on USR1; the snakemake around it, which knows no such signal, must outlive it
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

# a job that somebody cancelled must count as failed, not as running
with suppress(ModuleNotFoundError):
    import snakemake_executor_plugin_slurm as slurm_plugin

    slurm_plugin.query_job_status = plain_states(slurm_plugin.query_job_status)


def is_network(wildcards):
    return "model" in wildcards.keys() and not choose.is_baseline(CONFIG, wildcards.experiment, wildcards.model)


def needs(minutes, memory_mb, per_thread_mb=0, per_input=0):
    """The resources of a rule at the first attempt; a later one asks for more.

    Args: run time in min; memory in MB, plus so much per thread, plus so many times the size of its inputs.
    Jobs on networks also ask for a GPU.
    """

    def runtime(wildcards, attempt):
        return SITE.minutes(minutes, attempt)

    def mem_mb(wildcards, input, threads, attempt):
        return SITE.memory_mb(memory_mb + per_thread_mb * threads + (per_input * input.size_mb if per_input else 0), attempt)

    def tmpdir(wildcards):
        return SITE.scratch_folder()

    def asked(name):
        return lambda wildcards: SITE.asks(is_network(wildcards)).get(name)

    names = {**SITE.asks(network=False), **SITE.asks(network=True)}
    scratch = {"tmpdir": tmpdir} if SITE.scratch else {}
    return {"runtime": runtime, "mem_mb": mem_mb, **scratch, **{name: asked(name) for name in names}}


def packed(wildcards):
    """The group of a training: those of one model share a Slurm job and its GPU where the site packs them."""
    if SITE.gpu.pack == 1 or not is_network(wildcards):
        return None
    group = f"pack_{wildcards.experiment}_{wildcards.model}"
    # how many jobs make a group is an option of the command line; site.yaml takes its place, also in the snakemake on the node
    workflow.group_settings.group_components = {group: SITE.gpu.pack, **workflow.group_settings.group_components}
    return group


def look_before_start():
    """What would stop every job stops the workflow before the first one; snakemake calls this on the submitting machine only."""
    files = [Path(path) for dataset in CONFIG.datasets if dataset not in SYNTHETIC for path in listed_sources(dataset)]
    on_slurm = workflow.executor_plugin is not None and workflow.executor_plugin.name == "slurm"
    checks = list(preflight.look(preflight.Plan(CONFIG, SITE, on_slurm, CONTAINERS, tuple(files))))
    for check in checks:
        if check.status == "warning":
            print(f"preflight: {check}", file=sys.stderr)
    try:
        preflight.refuse(checks)
    except GyriError as error:
        raise WorkflowError(str(error)) from None


onstart:
    look_before_start()


def report_failure(log):
    """Whoever finds a failed run finds a page that says so; whatever happens here, the run stays failed."""
    logs = [log] if isinstance(log, str) else log
    words = ["unfinished", "--config", CONFIGURATION, "--log", *map(str, logs)]
    environment = {**os.environ, "PYTHONPATH": str(Path(workflow.basedir) / "workflow")}
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run([sys.executable, "-m", "gyri", *words], env=environment, check=False, timeout=600)


onerror:
    report_failure(log)
