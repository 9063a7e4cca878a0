# The locked participants: a target of their own, never part of `all`. `snakemake locked` reads them, and the reading is counted.


rule locked:
    input:
        expand("results/{experiment}/locked/metrics.tsv", experiment=CONFIG.experiments),


use rule predict_fold as predict_locked with:
    output:
        predictions="results/{experiment}/locked/{model}/fold-{fold}/seed-{seed}/predictions.tsv",
        probabilities=temp("results/{experiment}/locked/{model}/fold-{fold}/seed-{seed}/probabilities.npy"),
        provenance="results/{experiment}/locked/{model}/fold-{fold}/seed-{seed}/provenance-predict.json",
    log:
        "results/logs/{experiment}/{model}/predict-locked-fold-{fold}-seed-{seed}.log",
    params:
        **job("predict-fold"),
        dataset=dataset_of,
        scope="--locked",


use rule average_models as average_locked with:
    input:
        locked_files("predictions.tsv"),
        locked_files("probabilities.npy"),
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        manifest=dataset_file("images.json"),
    output:
        predictions="results/{experiment}/locked/{ensemble}/fold-all/seed-all/predictions.tsv",
        provenance="results/{experiment}/locked/{ensemble}/fold-all/seed-all/provenance-ensemble.json",
    log:
        "results/logs/{experiment}/{ensemble}/ensemble-locked.log",
    params:
        **job("ensemble"),
        dataset=dataset_of,
        fold="all",
        scope="--locked",


use rule evaluate_experiment as evaluate_locked with:
    input:
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        splits=dataset_file("splits.tsv"),
        manifest=dataset_file("images.json"),
        fitted="results/{experiment}/fitted.tsv",
        runs=lambda wildcards: [at_locked(path) for path in run_files("predictions.tsv")(wildcards)],
        averages=locked_averages,
    output:
        predictions="results/{experiment}/locked/predictions.tsv",
        cases="results/{experiment}/locked/cases.tsv",
        metrics="results/{experiment}/locked/metrics.tsv",
        undefined="results/{experiment}/locked/undefined.tsv",
        comparisons="results/{experiment}/locked/comparisons.tsv",
        chance="results/{experiment}/locked/chance.tsv",
        subgroups="results/{experiment}/locked/subgroups.tsv",
        provenance="results/{experiment}/locked/provenance-evaluate.json",
    log:
        "results/logs/{experiment}/evaluate-locked.log",
    params:
        **job("evaluate"),
        dataset=dataset_of,
        scope="--locked",
