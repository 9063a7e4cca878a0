# From raw images to one packed store, its split, and the normalization of each fold.


rule make_synthetic_cohort:
    output:
        manifest="results/datasets/{dataset}/synthetic.tsv",
        provenance="results/datasets/{dataset}/provenance-synthetic.json",
    log:
        "results/logs/datasets/{dataset}/synthetic.log",
    container:
        IMAGES["tables"]
    threads: CONFIG.threads.dataset
    resources:
        **needs(minutes=60, memory_mb=2000, per_thread_mb=1000),
    params:
        **job("synthetic"),
    shell:
        "PYTHONPATH=workflow python -m gyri synthetic --dataset {wildcards.dataset} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} 2>&1 | tee {log}"


# The one rule that reads the raw images as inputs: whatever changes among them reruns everything of its dataset.
rule read_dataset:
    input:
        raw_files,
    output:
        cohort="results/datasets/{dataset}/cohort.tsv",
        facts="results/datasets/{dataset}/dataset.json",
        provenance="results/datasets/{dataset}/provenance-dataset.json",
    log:
        "results/logs/datasets/{dataset}/dataset.log",
    container:
        IMAGES["tables"]
    threads: CONFIG.threads.dataset
    resources:
        **needs(minutes=60, memory_mb=2000, per_thread_mb=1000),
    params:
        **job("dataset"),
    shell:
        "PYTHONPATH=workflow python -m gyri dataset --dataset {wildcards.dataset} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} 2>&1 | tee {log}"


rule audit_dataset:
    input:
        cohort="results/datasets/{dataset}/cohort.tsv",
        facts="results/datasets/{dataset}/dataset.json",
    output:
        checks="results/datasets/{dataset}/audit.tsv",
        findings="results/datasets/{dataset}/audit.json",
        excluded="results/datasets/{dataset}/excluded.tsv",
        provenance="results/datasets/{dataset}/provenance-audit.json",
    log:
        "results/logs/datasets/{dataset}/audit.log",
    container:
        IMAGES["tables"]
    threads: CONFIG.threads.audit
    resources:
        **needs(minutes=120, memory_mb=2000, per_thread_mb=2000),
    params:
        **job("audit"),
    shell:
        "PYTHONPATH=workflow python -m gyri audit --dataset {wildcards.dataset} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} 2>&1 | tee {log}"


rule split_dataset:
    input:
        split_files,
        cohort="results/datasets/{dataset}/cohort.tsv",
        facts="results/datasets/{dataset}/dataset.json",
        excluded="results/datasets/{dataset}/excluded.tsv",
    output:
        splits="results/datasets/{dataset}/splits.tsv",
        balance="results/datasets/{dataset}/balance.tsv",
        provenance="results/datasets/{dataset}/provenance-split.json",
    log:
        "results/logs/datasets/{dataset}/split.log",
    localrule: True
    container:
        IMAGES["tables"]
    params:
        **job("split"),
    shell:
        "PYTHONPATH=workflow python -m gyri split --dataset {wildcards.dataset} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} 2>&1 | tee {log}"


rule preprocess_images:
    input:
        cohort="results/datasets/{dataset}/cohort.tsv",
        facts="results/datasets/{dataset}/dataset.json",
        excluded="results/datasets/{dataset}/excluded.tsv",
    output:
        images="results/datasets/{dataset}/images.npy",
        labels="results/datasets/{dataset}/labels.npy",
        manifest="results/datasets/{dataset}/images.json",
        features="results/datasets/{dataset}/features.tsv",
        provenance="results/datasets/{dataset}/provenance-preprocess.json",
    log:
        "results/logs/datasets/{dataset}/preprocess.log",
    container:
        IMAGES["tables"]
    threads: CONFIG.threads.preprocess
    resources:
        **needs(minutes=240, memory_mb=2000, per_thread_mb=2000),
    params:
        **job("preprocess"),
    shell:
        "PYTHONPATH=workflow python -m gyri preprocess --dataset {wildcards.dataset} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} 2>&1 | tee {log}"


rule normalize_fold:
    input:
        splits="results/datasets/{dataset}/splits.tsv",
        cohort="results/datasets/{dataset}/cohort.tsv",
        images="results/datasets/{dataset}/images.npy",
        manifest="results/datasets/{dataset}/images.json",
    output:
        facts="results/datasets/{dataset}/fold-{fold}/normalization.json",
        arrays="results/datasets/{dataset}/fold-{fold}/normalization.safetensors",
        provenance="results/datasets/{dataset}/fold-{fold}/provenance-normalize.json",
    log:
        "results/logs/datasets/{dataset}/normalize-fold-{fold}.log",
    priority: 3  # every training of the fold waits for it
    container:
        IMAGES["tables"]
    resources:
        **needs(minutes=60, memory_mb=2000, per_input=2),
    params:
        **job("normalize"),
    shell:
        "PYTHONPATH=workflow python -m gyri normalize --dataset {wildcards.dataset} --fold {wildcards.fold} --settings {params.settings:q}"
        " --code {params.code} --environment {params.environment} 2>&1 | tee {log}"
