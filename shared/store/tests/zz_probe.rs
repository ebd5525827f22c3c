use fjall::AbstractTree;
#[test]
fn probe() {
    std::fs::remove_dir_all("/var/tmp/fbprobe").ok();
    std::process::Command::new("cp").args(["-r","--sparse=always","/var/tmp/fbkeep","/var/tmp/fbprobe"]).status().unwrap();
    let db = fjall::Database::builder("/var/tmp/fbprobe/db").worker_threads(1).manual_journal_persist(true).max_journaling_size(64<<20).open().unwrap();
    let mut names: Vec<_> = db.list_keyspace_names().into_iter().filter(|n| n.starts_with("segment")).collect();
    names.sort();
    for round in 0..2 {
    for n in &names {
        let ks = db.keyspace(n, fjall::KeyspaceCreateOptions::default).unwrap();
        let mut spans: Vec<(u32,u64,u64,usize)> = vec![];
        let mut err = 0;
        for g in ks.iter() {
            let (k,v) = match g.into_inner() { Ok(x)=>x, Err(e)=>{ println!("ERR {e:?}"); err+=1; break } };
            let t = u32::from_be_bytes(k[..4].try_into().unwrap()); let s = u64::from_be_bytes(k[4..].try_into().unwrap());
            let c = u32::from_be_bytes(v[12..16].try_into().unwrap()) as u64;
            match spans.last_mut() { Some(x) if x.0==t && x.2==s => { x.2=s+c; x.3+=1 }, _=> spans.push((t,s,s+c,1)) }
        }
        println!("{n} id {} tables {} sealed {} active {} l0 {} persisted {:?} mem {:?} err {err} {:?}", ks.id(), ks.table_count(), ks.sealed_memtable_count(), ks.tree.active_memtable().size(), ks.tree.l0_run_count(), ks.tree.get_highest_persisted_seqno(), ks.tree.get_highest_memtable_seqno(), spans);
    }
    println!("journals {}", db.journal_count());
    std::thread::sleep(std::time::Duration::from_millis(500 * (round+1)));
    }
    let ix = db.keyspace("index", fjall::KeyspaceCreateOptions::default).unwrap();
    for g in ix.iter() { let (k,v)=g.into_inner().unwrap(); if k[0]==b's' { let mut sp=vec![]; for c in v[33..].chunks(20) { sp.push((c[3], u64::from_be_bytes(c[4..12].try_into().unwrap()), u64::from_be_bytes(c[12..20].try_into().unwrap()))); } println!("seal {:x} {:?}", u64::from_be_bytes(k[1..].try_into().unwrap()), sp); } }
}
