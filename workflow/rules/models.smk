# Training, prediction and averaging: one job per model, fold and seed.


rule train_model:
    input:
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        splits=dataset_file("splits.tsv"),
        images=dataset_file("images.npy"),
        labels=dataset_file("labels.npy"),
        manifest=dataset_file("images.json"),
        normalization=fold_file("normalization.json"),
        arrays=fold_file("normalization.safetensors"),
    output:
        weights="results/{experiment}/{model}/fold-{fold}/seed-{seed}/weights.safetensors",
        last="results/{experiment}/{model}/fold-{fold}/seed-{seed}/last.safetensors",
        history="results/{experiment}/{model}/fold-{fold}/seed-{seed}/history.tsv",
        model="results/{experiment}/{model}/fold-{fold}/seed-{seed}/model.json",
        provenance="results/{experiment}/{model}/fold-{fold}/seed-{seed}/provenance-train.json",
    log:
        "results/logs/{experiment}/{model}/train-fold-{fold}-seed-{seed}.log",
    priority: urgency
    group:
        packed
    container:
        IMAGES["torch"]
    threads: CONFIG.threads.train
    resources:
        **needs(minutes=240, memory_mb=6000, per_input=2),
        versions=CONFIG.versions,  # a resource, since another value makes nothing run again
    params:
        **job("train"),
        dataset=dataset_of,
    # bash and tee ignore the signals that ask the training to save its state and stop, or they would end it before that
    shell:
        "trap '' TERM USR1; PYTHONPATH=workflow python -m gyri train --dataset {params.dataset} --experiment {wildcards.experiment} --model {wildcards.model}"
        " --fold {wildcards.fold} --seed {wildcards.seed} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} --runtime {resources.runtime} --versions {resources.versions} 2>&1 | tee {log}"


rule predict_fold:
    input:
        weights="results/{experiment}/{model}/fold-{fold}/seed-{seed}/weights.safetensors",
        model="results/{experiment}/{model}/fold-{fold}/seed-{seed}/model.json",
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        splits=dataset_file("splits.tsv"),
        images=dataset_file("images.npy"),
        manifest=dataset_file("images.json"),
    output:
        predictions="results/{experiment}/{model}/fold-{fold}/seed-{seed}/predictions.tsv",
        probabilities=temp("results/{experiment}/{model}/fold-{fold}/seed-{seed}/probabilities.npy"),
        provenance="results/{experiment}/{model}/fold-{fold}/seed-{seed}/provenance-predict.json",
    log:
        "results/logs/{experiment}/{model}/predict-fold-{fold}-seed-{seed}.log",
    container:
        IMAGES["torch"]
    threads: CONFIG.threads.predict
    resources:
        **needs(minutes=60, memory_mb=6000, per_input=2),
        versions=CONFIG.versions,
    params:
        **job("predict-fold"),
        dataset=dataset_of,
        scope="",
    shell:
        "PYTHONPATH=workflow python -m gyri predict-fold {params.scope} --dataset {params.dataset} --experiment {wildcards.experiment} --model {wildcards.model}"
        " --fold {wildcards.fold} --seed {wildcards.seed} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} --versions {resources.versions} 2>&1 | tee {log}"


rule explain_model:
    input:
        weights=first_seeds("weights.safetensors"),
        models=first_seeds("model.json"),
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        splits=dataset_file("splits.tsv"),
        images=dataset_file("images.npy"),
        labels=dataset_file("labels.npy"),
        manifest=dataset_file("images.json"),
    output:
        table="results/{experiment}/{model}/saliency/saliency.tsv",
        regions="results/{experiment}/{model}/saliency/regions.tsv",
        maps="results/{experiment}/{model}/saliency/maps.npy",
        means="results/{experiment}/{model}/saliency/means.nii.gz",
        facts="results/{experiment}/{model}/saliency/saliency.json",
        provenance="results/{experiment}/{model}/saliency/provenance-explain.json",
    log:
        "results/logs/{experiment}/{model}/explain.log",
    container:
        IMAGES["torch"]
    threads: CONFIG.threads.predict
    resources:
        **needs(minutes=120, memory_mb=6000, per_input=2),
        versions=CONFIG.versions,
    params:
        **job("explain"),
        dataset=dataset_of,
    shell:
        "PYTHONPATH=workflow python -m gyri explain --dataset {params.dataset} --experiment {wildcards.experiment} --model {wildcards.model}"
        " --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} --threads {threads} --versions {resources.versions} 2>&1 | tee {log}"


rule average_models:
    input:
        member_files("predictions.tsv"),
        member_files("probabilities.npy"),
        member_files("model.json"),
        cohort=dataset_file("cohort.tsv"),
        facts=dataset_file("dataset.json"),
        manifest=dataset_file("images.json"),
    output:
        predictions="results/{experiment}/{ensemble}/fold-{fold}/seed-all/predictions.tsv",
        provenance="results/{experiment}/{ensemble}/fold-{fold}/seed-all/provenance-ensemble.json",
    log:
        "results/logs/{experiment}/{ensemble}/ensemble-fold-{fold}.log",
    container:
        IMAGES["tables"]
    resources:
        **needs(minutes=30, memory_mb=2000, per_input=2),
    params:
        **job("ensemble"),
        dataset=dataset_of,
        fold=lambda wildcards: wildcards.fold,
        scope="",
    shell:
        "PYTHONPATH=workflow python -m gyri ensemble {params.scope} --dataset {params.dataset} --experiment {wildcards.experiment} --ensemble {wildcards.ensemble}"
        " --fold {params.fold} --settings {params.settings:q} --code {params.code}"
        " --environment {params.environment} 2>&1 | tee {log}"
