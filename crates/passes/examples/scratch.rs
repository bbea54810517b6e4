//! scratch
fn main() {
    for path in std::env::args().skip(1) {
        let t = std::time::Instant::now();
        let mut g = match tconvc_ir::onnx::read_path(std::path::Path::new(&path)) {
            Ok(g) => g,
            Err(e) => {
                println!("{path}: READ {e}");
                continue;
            }
        };
        let t1 = t.elapsed();
        if let Err(e) = tconvc_ir::infer::infer(&mut g) {
            println!("{path}: INFER {e}");
            continue;
        }
        let before = (g.node_count(), tconvc_passes::cost::graph_cost(&g));
        if std::env::var("PROF").is_ok() {
            let base = g.clone();
            for _ in 0..1 {
                let mut g = base.clone();
                for p in tconvc_passes::pipeline::passes() {
                    let t = std::time::Instant::now();
                    let j = tconvc_passes::pipeline::run_passes(
                        &mut g,
                        &[p as &dyn tconvc_passes::Pass],
                        &Default::default(),
                    )
                    .unwrap();
                    println!("     {} {:?} {}", p.about().name, t.elapsed(), j.entries().len());
                }
                let t = std::time::Instant::now();
                tconvc_ir::infer::infer(&mut g).unwrap();
                println!("   infer {:?}", t.elapsed());
                let t = std::time::Instant::now();
                let _ = g.order();
                println!("   order {:?}", t.elapsed());
            }
        }
        let t = std::time::Instant::now();
        match tconvc_passes::optimise(&mut g, &tconvc_passes::Options::default()) {
            Ok(j) => {
                println!(
                    "{path}: read {t1:?} opt {:?} nodes {} -> {} ; {} -> {}",
                    t.elapsed(),
                    before.0,
                    g.node_count(),
                    before.1,
                    tconvc_passes::cost::graph_cost(&g)
                );
                let mut m = std::collections::BTreeMap::<String, usize>::new();
                for e in j.entries() {
                    *m.entry(format!(
                        "{} {:?} {} {}",
                        e.pass,
                        e.verdict,
                        e.op,
                        if e.decision.reason.is_empty() { String::new() } else { e.decision.reason.clone() }
                    ))
                    .or_default() += 1;
                }
                if std::env::var("V").is_ok() {
                    for (k, v) in m {
                        println!("   {v} {k}");
                    }
                }
                let mut ops = std::collections::BTreeMap::<String, usize>::new();
                for n in g.order().unwrap() {
                    let o = &g.node(n).op;
                    *ops.entry(match o {
                        tconvc_ir::Op::Opaque(_) => format!("?{}", o.name()),
                        _ => o.name().to_string(),
                    })
                    .or_default() += 1;
                }
                println!("   {ops:?}");
            }
            Err(e) => println!("{path}: OPT {e}"),
        }
    }
}
