from gradtx.experimental import aggregating as aggregating
