# Numbers, pages, and the index of pages.


rule evaluate_experiment:
    input:
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        splits=dataset_file("splits.tsv"),
        manifest=dataset_file("images.json"),
        features=dataset_file("features.tsv"),
        runs=run_files("predictions.tsv"),
        averages=ensemble_files("predictions.tsv"),
    output:
        predictions="results/{experiment}/predictions.tsv",
        cases="results/{experiment}/cases.tsv",
        metrics="results/{experiment}/metrics.tsv",
        undefined="results/{experiment}/undefined.tsv",
        comparisons="results/{experiment}/comparisons.tsv",
        chance="results/{experiment}/chance.tsv",
        subgroups="results/{experiment}/subgroups.tsv",
        fitted="results/{experiment}/fitted.tsv",
        gains="results/{experiment}/gains.tsv",
        provenance="results/{experiment}/provenance-evaluate.json",
    log:
        "results/logs/{experiment}/evaluate.log",
    container:
        IMAGES["tables"]
    threads: measuring_threads
    resources:
        **needs(minutes=120, memory_mb=3000, per_thread_mb=1000),
    params:
        **job("evaluate"),
        dataset=dataset_of,
        scope="",
    shell:
        "PYTHONPATH=workflow python -m gyri evaluate {params.scope} --dataset {params.dataset} --experiment {wildcards.experiment} --settings {params.settings:q}"
        " --code {params.code} --environment {params.environment} --threads {threads}"
        " --predictions {input.runs:q} {input.averages:q} 2>&1 | tee {log}"


rule report_experiment:
    input:
        predictions="results/{experiment}/predictions.tsv",
        cases="results/{experiment}/cases.tsv",
        metrics="results/{experiment}/metrics.tsv",
        undefined="results/{experiment}/undefined.tsv",
        comparisons="results/{experiment}/comparisons.tsv",
        chance="results/{experiment}/chance.tsv",
        subgroups="results/{experiment}/subgroups.tsv",
        fitted="results/{experiment}/fitted.tsv",
        gains="results/{experiment}/gains.tsv",
        evaluated="results/{experiment}/provenance-evaluate.json",
        histories=run_files("history.tsv"),
        trained=run_files("provenance-train.json"),
        predicted=run_files("provenance-predict.json"),
        saliency=explained_files("saliency.json"),
        cohort=dataset_file("cohort.tsv"),
        audit=dataset_file("audit.json"),
        checks=dataset_file("audit.tsv"),
        excluded=dataset_file("excluded.tsv"),
        splits=dataset_file("splits.tsv"),
        balance=dataset_file("balance.tsv"),
        images=dataset_file("images.json"),
    output:
        page=report(
            "results/{experiment}/report.html",
            caption="../report/experiment.rst",
            category="Experiments",
            subcategory="{experiment}",
            labels={"page": "report"},
        ),
        twin="results/{experiment}/report.json",
        methods=report(
            "results/{experiment}/methods.md",
            caption="../report/methods.rst",
            category="Experiments",
            subcategory="{experiment}",
            labels={"page": "methods text"},
        ),
        references="results/{experiment}/methods.bib",
        claim="results/{experiment}/sheets/claim.tsv",
        claim_text="results/{experiment}/sheets/claim.md",
        tripod="results/{experiment}/sheets/tripod_ai.tsv",
        tripod_text="results/{experiment}/sheets/tripod_ai.md",
        model="results/{experiment}/sheets/model.tsv",
        model_text="results/{experiment}/sheets/model.md",
        workflow="results/{experiment}/Snakefile",
        crate="results/{experiment}/ro-crate-metadata.json",
        provenance="results/{experiment}/provenance-report.json",
    log:
        "results/logs/{experiment}/report.log",
    localrule: True
    container:
        IMAGES["tables"]
    params:
        **job("report"),
    shell:
        "PYTHONPATH=workflow python -m gyri report --experiment {wildcards.experiment} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} 2>&1 | tee {log}"


rule report_index:
    input:
        expand("results/{experiment}/report.html", experiment=CONFIG.experiments),
        expand("results/{experiment}/report.json", experiment=CONFIG.experiments),
    output:
        page=report("results/report.html", caption="../report/index.rst", category="All experiments", labels={"page": "index"}),
        twin="results/report.json",
        provenance="results/provenance-index.json",
    log:
        "results/logs/index.log",
    localrule: True
    container:
        IMAGES["tables"]
    params:
        **job("index"),
    shell:
        "PYTHONPATH=workflow python -m gyri index --settings {params.settings:q} --code {params.code} --environment {params.environment} 2>&1 | tee {log}"
